"""The train stage at the shape of stable-code-3b: expected memory, reserved memory and speed, under
one allocator cap after another.

    python -m benchmarks.training.stage [--vram-gib 6 8 9 12] [--steps 8] [--set train.FIELD=VALUE]

Base and rows are synthetic (see `shape`, `benchmarks.random_model`); everything else is the stage's
own: loading in 4 bit, probe, steps, validation, checkpoints, adapter. Needs a CUDA GPU, or several:
`--set hardware.gpus=2`, with `--set hardware.shard_base=true` for a base split over them.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks import random_model
from benchmarks.training import shape
from tasks.core import progress
from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import ROWS_FILE, WINDOWS_FILE, Window
from tasks.core.rows import row_schema
from tasks.core.settings.config import Config, View, load
from tasks.core.stage import Work
from tasks.training import STAGE


class Messages:
    """Prints the stage's messages."""

    def update(self, *_: Any) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Print a line."""
        show(f"    {text}")


def show(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_split(folder: Path, windows: list[Window]) -> Path:
    """Write windows in the format of the tokenize stage; first tokens are prompts."""
    folder.mkdir(parents=True)
    rows: list[list[int]] = []
    plan: list[list[int]] = []
    for window in windows:
        cuts = window.cu_seqlens[1:-1]
        samples = [part.tolist() for part in np.split(window.input_ids, cuts)]
        plan.append(list(range(len(rows), len(rows) + len(samples))))
        rows += samples
    names = [f"r{i}" for i in range(len(rows))]
    tokens = pa.table([names, rows, [1] * len(rows)], schema=row_schema.TOKENS)
    pq.write_table(tokens, folder / ROWS_FILE, row_group_size=1000)
    sizes = [len(w.input_ids) for w in windows]
    table = pa.table([range(len(plan)), plan, sizes], schema=row_schema.WINDOWS)
    pq.write_table(table, folder / WINDOWS_FILE)
    return folder


def train(config: Config, home: Path, data: Path, name: str) -> dict[str, Any]:
    """Run the stage; returns training.json."""
    inputs = {
        "tokenize.train": data / "train",
        "tokenize.validation": data / "validation",
        "base.weights": home / "model",
        "base.tokenizer": home / "model",
    }
    work = Work(home / name / "out", home / name / "scratch")
    for folder in (work.out, work.scratch):
        folder.mkdir(parents=True)
    with progress.sink(Messages()):
        STAGE.load_run()(View(config, STAGE.reads, STAGE.name), inputs, work)
    facts: dict[str, Any] = json.loads((work.out / "training.json").read_text(encoding="utf-8"))
    return facts


def main() -> None:
    """Run under every cap and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vram-gib", type=float, nargs="*", default=[6.0, 8.0, 9.0, 12.0])
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--window-tokens", type=int, default=4096)
    options.add_argument("--batch-tokens", type=int, default=16_384)
    options.add_argument("--set", action="append", default=[], dest="changes")
    options.add_argument("--home", type=Path)
    given = options.parse_args()
    home = given.home or Path(tempfile.mkdtemp(prefix="finetune-stage-"))
    random_model.make(home / "model")
    data = home / f"data-{given.window_tokens}"
    if not data.exists():
        source = shape.packed_windows(given.window_tokens)
        if given.window_tokens > 8192:
            source = (shape.window_of([given.window_tokens], i) for i in range(100))
        windows = [next(source) for _ in range(16)]
        write_split(data / "train", windows)
        write_split(data / "validation", windows[:2])
    show(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    profile = home / "profile.yaml"
    profile.write_text("{}\n", encoding="utf-8")
    lines = []
    for cap in given.vram_gib:
        settings = [
            f"train.batch_tokens={given.batch_tokens}",
            f"train.max_steps={given.steps}",
            "train.warmup_steps=2",
            f"hardware.vram_gib={cap}",
            *given.changes,
        ]
        config = load(profile, settings)
        began = time.perf_counter()
        try:
            facts = train(config, home, data, f"run-{time.time_ns()}")
        except PipelineError as error:
            show(f"{cap} GiB: {error}")
            continue
        expected, taken = facts["expected_vram_gib"], facts["peak_vram_gib"]
        lines.append(
            f"| {cap:g} | {facts['kept_layers']} | {facts['load_vram_gib']:.2f} | {expected:.2f} "
            f"| {taken:.2f} | {100 * (taken / expected - 1):+.1f} % "
            f"| {facts['expected_tokens_per_s']:,.0f} "
            f"| {facts['tokens_per_s']:,.0f} | {time.perf_counter() - began:.0f} |"
        )
        show(lines[-1])
    show(
        "\n| cap GiB | layers kept | loading GiB | expected GiB | reserved GiB | off | expected "
        "tokens/s | tokens/s | seconds |\n" + "|---" * 9 + "|\n" + "\n".join(lines)
    )


if __name__ == "__main__":
    main()
