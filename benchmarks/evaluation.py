"""Memory of measuring losses as the held-out set grows.

    python -m benchmarks.evaluation [--rows 1000 5000 25000]

A tiny Llama with an adapter and rows of 32 to 96 tokens, as tokenize writes them, through the
evaluation's own `ModelPair.losses`, one process a size. Measured are the peak of the resident
memory and the part of it after loading; both models' results of every row are in it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

MIB = 2**20
WINDOW_TOKENS = 1024


def main() -> None:
    """One process a size, one row of the table each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000, 5_000, 25_000])
    options.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(measure(given.child)))
        return
    print("| rows | tokens | peak MiB | of it after loading |\n|--:|--:|--:|--:|")
    for rows in given.rows:
        command = [sys.executable, "-m", "benchmarks.evaluation", "--child", str(rows)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {rows:,} | {found['tokens']:,} | {found['peak']:.0f} "
            f"| {found['peak'] - found['loaded']:.0f} |",
            flush=True,
        )


def measure(rows: int) -> dict[str, float]:
    """Losses of so many rows by both models."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks import random_model
    from tasks.core.models.packed_dataset import Windows
    from tasks.core.models.pretrained import load_tokenizer
    from tasks.evaluation.model_pair import ModelPair
    from tasks.evaluation.timing import Clock
    from tasks.training.lora import add_lora

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    model = add_lora(LlamaForCausalLM(config).eval(), rank=4, alpha=16, dropout=0.0)
    with tempfile.TemporaryDirectory() as folder:
        random_model.tokenizer(Path(folder), 2048)
        pair = ModelPair(model.eval(), load_tokenizer(Path(folder)))
        tokens = write_rows(Path(folder), rows)
        few = list(Windows.open(Path(folder)).rows())[:200]
        losses = partial(
            pair.losses,
            endings=pair.endings("instruction"),
            clusters={},
            total=tokens,
            window_tokens=WINDOW_TOKENS,
            clock=Clock(),
        )
        losses(few, label="warm")  # what a first pass allocates once
        loaded = peak_mib()
        found = losses(Windows.open(Path(folder)).rows(), label="all")
    assert len(found) == rows
    return {"tokens": tokens, "loaded": loaded, "peak": peak_mib()}


def write_rows(folder: Path, rows: int) -> int:
    """A tokenized split; its tokens."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.core.rows import row_schema

    rng = np.random.default_rng(0)
    lengths = rng.integers(32, 97, rows)
    values = pa.array(rng.integers(1, 2048, int(lengths.sum())), pa.int32())
    ids = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32()), values
    )
    names = [f"{i:032x}" for i in range(rows)]
    table = pa.Table.from_arrays(
        [pa.array(names), ids, pa.array([8] * rows)], row_schema.TOKENS.names
    )
    pq.write_table(table.cast(row_schema.TOKENS), folder / "rows.parquet", row_group_size=1_000)
    plan = {"window": range(rows), "rows": [[i] for i in range(rows)], "tokens": lengths}
    plan = {name: pa.array(list(column)) for name, column in plan.items()}
    pq.write_table(pa.table(plan).cast(row_schema.WINDOWS), folder / "windows.parquet")
    return int(lengths.sum())


def peak_mib() -> float:
    """Most resident memory so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


if __name__ == "__main__":
    main()
