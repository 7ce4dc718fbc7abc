"""The same rows prepared in three ways, one after the other in one run.

    python -m benchmarks.data.compare --tokenizer FOLDER [--rows 20000] [--datatrove PYTHON]

Rows are those of `benchmarks.data.filter`: documented functions of installed packages, beyond what
there is with other names in them. `--tokenizer` is a folder that AutoTokenizer loads; `--datatrove`
the Python of an environment with datatrove[io,processing] in it.

- filter: ours is the stage with all its rules, exact and verified near duplicates, secrets,
  licences and decontamination, and a ledger of what was rejected; datatrove's has five rules of
  text, syntax, and MinHash duplicates of the same bands, unverified.
- tokenize: the rows that our filter kept, to Parquet. Ours is prompt and tokenize, with packing,
  audit and the check that tokens give back the text; the original way a pandas `apply` that formats
  and one tokenizer call a row; datatrove's a DocumentTokenizer over texts formatted before.

Each way runs in a process of its own with two workers where it has workers (the original has none,
its tokenizer call is one row). "CPU s" is that of all processes together, memory that of the
largest.
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
    """Make the rows, run all ways, print the table."""
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


def show(work: str, way: str, rows: int, told: dict[str, float]) -> None:
    """Print a line of the table."""
    cells = f"{rows:>10,}{told['seconds']:>9.1f}{rows / told['seconds']:>9,.0f}"
    print(f"{work:<10}{way:<12}{cells}{told['cpu']:>9.1f}{told['mib']:>8,.0f}", flush=True)


def ours(way: str, folder: Path) -> dict[str, float]:
    """Run a way in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.data.compare", "--tokenizer", str(folder)]
    done = subprocess.run(
        [*words, "--way", way, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def datatrove(python: str, *words: Any) -> dict[str, float]:
    """Run datatrove's way by its own Python."""
    command = [python, "-m", "benchmarks.data.datatrove_way", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, text=True, check=True, **QUIET)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def measured(way: str, folder: Path) -> dict[str, float]:
    """Seconds, CPU seconds and memory of a way; libraries are loaded before."""
    for stage in (FILTER, PROMPT, TOKENIZE):
        stage.load_run()
    if way == "tokenize":
        from tasks.tokenization.encode import load  # imports transformers

        load(str(folder / "tokenizer"))
    begin, before = time.perf_counter(), usage()
    WAYS[way](folder)
    seconds, after = time.perf_counter() - begin, usage()
    return {"seconds": seconds, "cpu": after[0] - before[0], "mib": after[1]}


def usage() -> tuple[float, float]:
    """CPU seconds of this process and those it waited for, and MiB of the largest."""
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
