"""Speed of prompt + tokenize, from kept rows to token ids in Parquet, against the original script.

    python -m benchmarks.data.tokenize [--rows 20000] [--tokenizer FOLDER]

The rows are documented functions of installed packages, chosen so that their mean length is about
`--tokens`. The original way is a pandas `apply` that formats a row, and one tokenizer call a row;
its tokens are written with pandas, so that both leave Parquet. `--tokenizer` is a folder that
AutoTokenizer loads; without one a byte-level BPE of 32,000 tokens is trained on a part of the rows.
Each way runs in a process of its own, which tells its peak memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.rows import row_schema
from tasks.core.rows.parquet import read_batches
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.ingestion import STAGE as INGEST
from tasks.prompting import STAGE as PROMPT
from tasks.tokenization import STAGE as TOKENIZE

PACKAGES = ("python", "networkx", "sympy", "boltons", "more-itertools", "torch", "scipy", "pandas")
SPLITS = ("train", "validation", "test")
MAX_TOKENS = 4096
CHARACTERS_A_TOKEN = 3.75  # of Python, about; only to choose rows of a length


def main() -> None:
    """Create the rows, run both, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--tokens", type=int, default=389, help="mean tokens of a row, about")
    options.add_argument("--tokenizer", type=Path)
    options.add_argument("--way", choices=("ours", "original"), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.way:
        run = ours if given.way == "ours" else original
        print(json.dumps(run(given.folder) | {"rss_mib": peak_mib()}))
        return
    with tempfile.TemporaryDirectory(prefix="finetune-tokenize-") as name:
        folder = Path(name)
        make_rows(folder, given.rows, given.tokens)
        make_tokenizer(folder, given.tokenizer)
        results = {way: in_a_process(way, folder) for way in ("original", "ours")}
    show(results)


def in_a_process(way: str, folder: Path) -> dict[str, Any]:
    """Measurements of one of them, in its own process."""
    words = [sys.executable, "-m", "benchmarks.data.tokenize", "--way", way]
    done = subprocess.run(
        [*words, "--folder", str(folder)], capture_output=True, text=True, check=True
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, pyarrow {pa.__version__}")
    names = ("rows", "tokens", "a row", "s", "rows/s", "CPU s", "peak MiB")
    widths = (8, 12, 7, 8, 9, 8, 10)
    print(f"{'way':<10}" + "".join(f"{n:>{w}}" for n, w in zip(names, widths, strict=True)))
    for way, r in results.items():
        mean, rate = r["tokens"] / r["rows"], r["rows_in"] / r["seconds"]
        print(
            f"{way:<10}{r['rows']:>8,}{r['tokens']:>12,}{mean:>7.0f}{r['seconds']:>8.1f}"
            f"{rate:>9,.0f}{r['cpu_s']:>8.1f}{r['rss_mib']:>10,.0f}"
        )
        if parts := r.get("parts"):
            print("          " + ", ".join(f"{name} {s:.1f} s" for name, s in parts.items()))
    wall, cpu = (results["original"][k] / results["ours"][k] for k in ("seconds", "cpu_s"))
    print(f"ours is {wall:.1f} times as fast, at 1/{cpu:.1f} of the CPU time; packing, audit and")
    print("exactness check included. CPU s tells more where other work shares the machine.")


def make_rows(folder: Path, rows: int, tokens: int) -> None:
    """Kept rows of about a mean length, repeated under other ids if there are too few."""
    out = folder / "ingest"
    (out / "scratch").mkdir(parents=True)
    source = {"kind": "packages", "names": installed()}
    config = check({"ingest": {"sources": [source]}})
    INGEST.load_run()(View(config, INGEST.reads), {}, Work(out, out / "scratch"))
    found = [r for t in read_batches(out / "rows.parquet", 4096) for r in t.to_pylist()]
    chosen = of_length(found, rows, tokens * CHARACTERS_A_TOKEN)
    kept = [
        row | {"row_id": f"{i:032x}", "cluster": f"{i:032x}", "redactions": ""}
        for i, row in enumerate(chosen)
    ]
    table = pa.Table.from_pylist(kept, schema=row_schema.KEPT)
    pq.write_table(table, folder / "kept.parquet", compression="zstd", row_group_size=4096)
    pq.write_table(
        pa.table({"row_id": pa.array([], pa.string()), "test": pa.array([], pa.string())}),
        folder / "executable.parquet",
    )


def installed() -> list[str]:
    """Installed packages."""
    from importlib import metadata

    there = {distribution.name for distribution in metadata.distributions()}
    return [name for name in PACKAGES if name == "python" or name in there]


def of_length(found: list[dict[str, Any]], rows: int, characters: float) -> list[dict[str, Any]]:
    """Rows whose mean length is about `characters`: short ones are left out as far as needed."""
    lengths = [len(row["instruction"]) + len(row["output"]) + 150 for row in found]
    order = sorted(range(len(found)), key=lengths.__getitem__)
    total, left_out = sum(lengths), 0
    while left_out < len(order) - 1 and total / (len(order) - left_out) < characters:
        total -= lengths[order[left_out]]
        left_out += 1
    wanted = set(order[left_out:])
    pool = [row for i, row in enumerate(found) if i in wanted]
    step = max(1.0, len(pool) / rows)
    return [pool[int(i * step) % len(pool)] for i in range(rows)]


def make_tokenizer(folder: Path, given: Path | None) -> None:
    """A tokenizer folder in the form of the stage `base`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if given:
        made = AutoTokenizer.from_pretrained(given)
    else:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=32_000,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        texts = pq.read_table(folder / "kept.parquet", columns=["output"]).column("output")
        bpe.train_from_iterator(texts.slice(0, 4000).to_pylist(), trainer)
        made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")
    made.save_pretrained(folder / "tokenizer")
    limits = {"max_tokens": MAX_TOKENS, "model_type": "llama", "vocab_size": len(made)}
    (folder / "tokenizer" / "model_limits.json").write_text(json.dumps(limits))


def ours(folder: Path) -> dict[str, Any]:
    """Stages prompt and tokenize; loading of libraries is not counted, as below."""
    config = check({"prompt": {"validation_share": 0.05, "test_share": 0.05}})
    inputs = {
        "filter.kept": folder / "kept.parquet",
        "ingest.executable": folder / "executable.parquet",
        "base.tokenizer": folder / "tokenizer",
    }
    parts: dict[str, float] = {}
    rows_in = rows = tokens = 0
    cpu_s = 0.0
    for stage in (PROMPT, TOKENIZE):
        run, out = stage.load_run(), folder / stage.name
        (out / "scratch").mkdir(parents=True)
        start, cpu = time.perf_counter(), time.process_time()
        summary = run(View(config, stage.reads), inputs, Work(out, out / "scratch"))
        parts[stage.name] = time.perf_counter() - start
        cpu_s += time.process_time() - cpu
        inputs |= {f"prompt.{split}": out / f"{split}.parquet" for split in SPLITS}
        inputs["prompt.split"] = folder / PROMPT.name / "split.json"
        rows_in = rows_in or summary.rows_in or 0
        rows = summary.rows_out or 0
        tokens = sum(int(n) for name, n in summary.metrics.items() if name.endswith("_tokens"))
    tokens -= MAX_TOKENS  # the metric max_tokens
    seconds = sum(parts.values())
    counts = {"rows_in": rows_in, "rows": rows, "tokens": tokens}
    return {**counts, "seconds": seconds, "cpu_s": cpu_s, "parts": parts}


def original(folder: Path) -> dict[str, Any]:
    """The single script: format by `apply`, tokenize row by row with truncation, drop rows at the
    limit, shuffle."""
    import pandas as pd
    from transformers import AutoTokenizer

    from tasks.core.text.prompt_templates import (
        END,
        INPUT,
        INSTRUCTION,
        INTRODUCTION,
        OUTPUT,
    )

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    start, cpu = time.perf_counter(), time.process_time()
    frame = pd.read_parquet(folder / "kept.parquet", columns=["instruction", "input", "output"])

    def create_prompt(sample: Any) -> str:
        parts = [
            INTRODUCTION,
            f"{INSTRUCTION}\n{sample['instruction']}",
            f"{INPUT}\n{sample['input']}" if sample["input"] else None,
            f"{OUTPUT}\n{sample['output']}",
            END,
        ]
        return "\n\n".join(part for part in parts if part)

    rows_in = len(frame)
    frame["text"] = frame.apply(create_prompt, axis=1)
    frame["input_ids"] = frame["text"].apply(
        lambda text: tokenizer(text, max_length=MAX_TOKENS, truncation=True)["input_ids"]
    )
    frame = frame[frame["input_ids"].apply(len) < MAX_TOKENS]
    frame = frame.sample(frac=1, random_state=0)
    frame[["input_ids"]].to_parquet(folder / "original.parquet", compression="zstd")
    took = {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
    tokens = int(frame["input_ids"].apply(len).sum())
    return {"rows_in": rows_in, "rows": len(frame), "tokens": tokens, **took}


def peak_mib() -> float:
    """Peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
