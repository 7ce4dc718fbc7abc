"""Data preparation compared: this pipeline, a single script, and datatrove on the same rows.

    python -m benchmarks.data.compare --tokenizer FOLDER [--rows 20000] [--datatrove PYTHON]

Rows are those of `benchmarks.data.filter`: documented functions of installed packages, repeated
with renamed identifiers up to the number of rows. `--tokenizer` is a folder that AutoTokenizer
loads; `--datatrove` is the Python of an environment with datatrove[io,processing].

- filter: ours is the stage with all its rules, exact and verified near duplicates, secrets,
  licences, decontamination, and a table of rejected rows; datatrove has five rules about text, a
  syntax check, and unverified MinHash duplicates with the same bands.
- tokenize: the rows that our filter kept, to Parquet. Ours is prompt and tokenize, with packing,
  audit and the check that tokens decode to the text; the original script formats with a pandas
  `apply` and calls the tokenizer for each row; datatrove is a DocumentTokenizer over formatted
  texts.

Each runs in its own process, with two workers except the original script, which has none. "CPU s"
is the sum over all processes, "MiB" the memory of the largest.
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

from benchmarks.data.filter import make_rows, run_stage
from benchmarks.data.incremental import tokenizer
from benchmarks.data.tokenize import original
from tasks.core.rows.parquet import read_batches
from tasks.filtering import STAGE as FILTER
from tasks.prompting import STAGE as PROMPT
from tasks.tokenization import STAGE as TOKENIZE

SPLITS = ("train", "validation", "test")
WORKERS = {"hardware": {"workers": 2}}
ROOT = Path(__file__).parents[2]
QUIET: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}


def main() -> None:
    """Create the rows, run everything, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--tokenizer", type=Path, required=True)
    options.add_argument("--datatrove", help="Python of an environment with datatrove")
    options.add_argument("--ours-only", action="store_true")
    options.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.way:
        print(json.dumps(measured(given.way, given.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="finetune-compare-") as name:
        folder = Path(name)
        tokenizer(given.tokenizer, folder / "tokenizer")
        rows = pq.read_metadata(make_rows(folder, given.rows)).num_rows
        print(f"{rows:,} rows; {os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
        print(f"{'work':<10}{'way':<12}{'rows':>10}{'s':>9}{'rows/s':>9}{'CPU s':>9}{'MiB':>8}")
        show("filter", "ours", rows, ours("filter", folder))
        if given.datatrove and not given.ours_only:
            write_texts(folder / "many.parquet", folder / "given", as_row)
            show("filter", "datatrove", rows, datatrove(given.datatrove, "rows", folder))
        kept = pq.read_metadata(folder / "kept.parquet").num_rows
        show("tokenize", "ours", kept, ours("tokenize", folder))
        if not given.ours_only:
            show("tokenize", "original", kept, ours("original", folder))
        if given.datatrove and not given.ours_only:
            for split in SPLITS:
                write_texts(folder / f"{split}.parquet", folder / "texts", as_prompt)
            file = str(folder / "tokenizer" / "tokenizer.json")
            show("tokenize", "datatrove", kept, datatrove(given.datatrove, "tokens", folder, file))


def show(work: str, way: str, rows: int, found: dict[str, float]) -> None:
    """Print a line of the table."""
    cells = f"{rows:>10,}{found['seconds']:>9.1f}{rows / found['seconds']:>9,.0f}"
    print(f"{work:<10}{way:<12}{cells}{found['cpu']:>9.1f}{found['mib']:>8,.0f}", flush=True)


def ours(way: str, folder: Path) -> dict[str, float]:
    """Run one of `WAYS` in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.data.compare", "--tokenizer", str(folder)]
    done = subprocess.run(
        [*words, "--way", way, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def datatrove(python: str, *words: Any) -> dict[str, float]:
    """Run datatrove with its own Python."""
    command = [python, "-m", "benchmarks.data.datatrove_run", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, text=True, check=True, **QUIET)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(way: str, folder: Path) -> dict[str, float]:
    """Seconds, CPU seconds and memory; libraries are loaded before."""
    for stage in (FILTER, PROMPT, TOKENIZE):
        stage.load_run()
    if way == "tokenize":
        from tasks.tokenization.run import open_tokenizer  # imports transformers

        open_tokenizer(str(folder / "tokenizer"))
    begin, before = time.perf_counter(), usage()
    WAYS[way](folder)
    seconds, after = time.perf_counter() - begin, usage()
    return {"seconds": seconds, "cpu": after[0] - before[0], "mib": after[1]}


def usage() -> tuple[float, float]:
    """CPU seconds of this process and its children, and MiB of the largest."""
    both = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in both)
    return cpu, max(u.ru_maxrss for u in both) / 1024


def our_filter(folder: Path) -> None:
    """Stage filter."""
    inputs = {"ingest.rows": folder / "many.parquet"}
    inputs["ingest.executable"] = folder / "executable.parquet"
    run_stage(FILTER, WORKERS, inputs, folder / "filter")
    (folder / "filter" / "kept.parquet").rename(folder / "kept.parquet")


def our_tokens(folder: Path) -> None:
    """Stages prompt and tokenize."""
    inputs = {
        "filter.kept": folder / "kept.parquet",
        "ingest.executable": folder / "executable.parquet",
        "base.tokenizer": folder / "tokenizer",
    }
    run_stage(PROMPT, WORKERS, inputs, folder / "prompt")
    inputs["prompt.split"] = folder / "prompt" / "split.json"
    for split in SPLITS:
        (folder / "prompt" / f"{split}.parquet").rename(folder / f"{split}.parquet")
        inputs[f"prompt.{split}"] = folder / f"{split}.parquet"
    run_stage(TOKENIZE, WORKERS, inputs, folder / "tokenize")


WAYS = {"filter": our_filter, "tokenize": our_tokens, "original": original}


def write_texts(source: Path, folder: Path, of: Any) -> None:
    """Rows as datatrove reads them, in two files for its two tasks."""
    folder.mkdir(exist_ok=True)
    writers: list[Any] = []
    for number, batch in enumerate(read_batches(source, 4096)):
        table = of(batch)
        if not writers:
            names = (f"{source.stem}-{n}.parquet" for n in range(2))
            writers = [pq.ParquetWriter(folder / name, table.schema) for name in names]
        writers[number % 2].write_table(table)
    for writer in writers:
        writer.close()


def as_row(batch: pa.Table) -> pa.Table:
    """Instruction and output as a text, and the output alone."""
    asked, code = (batch.column(name).to_pylist() for name in ("instruction", "output"))
    texts = [f"{a}\n\n{c}" for a, c in zip(asked, code, strict=True)]
    return pa.table({"text": texts, "id": batch.column("row_id"), "code": code})


def as_prompt(batch: pa.Table) -> pa.Table:
    """Prompt and completion as a text."""
    both = (batch.column(name).to_pylist() for name in ("prompt", "completion"))
    return pa.table({"text": [p + c for p, c in zip(*both, strict=True)], "id": batch["row_id"]})


if __name__ == "__main__":
    main()
