"""Memory of the stage `ingest` for rows of 1 MB each.

    python -m benchmarks.data.large_rows [--rows 2000]

Each file is read in a process of its own. A Parquet file has one row group. Pages of Parquet are
decoded as a whole: pyarrow writes 1,024 values, whatever their size, before it looks at the size
of a page, and its first page of a row group is a dictionary, which is held twice.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import ingestion
from tasks.core.settings.config import View, check
from tasks.core.stage import Work

CHARACTERS = 1 << 20
SCHEMA = pa.schema([("instruction", pa.string()), ("output", pa.string())])


def text(number: int) -> str:
    """A text of 1 MB that occurs once."""
    return (f"{number:07d} " * (CHARACTERS // 8))[:CHARACTERS]


def jsonl(path: Path, rows: int) -> None:
    """Write JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            file.write(json.dumps({"instruction": f"do {n}", "output": text(n)}) + "\n")


def parquet(path: Path, rows: int, **options: object) -> None:
    """Write one row group."""
    columns = [[f"do {n}" for n in range(rows)], [text(n) for n in range(rows)]]
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", **options) as writer:
        writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=rows)


FILES: dict[str, Callable[[Path, int], None]] = {
    "rows.jsonl": jsonl,
    "small_pages.parquet": lambda path, rows: parquet(path, rows, write_batch_size=16),
    "pyarrow_defaults.parquet": parquet,
}


def main() -> None:
    """Write and read the files, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=2000)
    options.add_argument("--write", type=Path)
    options.add_argument("--read", type=Path)
    given = options.parse_args()
    if given.write:
        FILES[given.write.name](given.write, given.rows)
        return
    if given.read:
        read(given.read)
        return
    print("| file | s | peak GiB |\n|---|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            path = Path(folder) / name
            for step in ("--write", "--read"):  # a child's peak begins with its parent's memory
                command = [sys.executable, "-m", "benchmarks.data.large_rows", step, str(path)]
                subprocess.run([*command, "--rows", str(given.rows)], check=True)
            path.unlink()


def read(path: Path) -> None:
    """Ingest a file and print its line of the table."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = {"kind": "files", "path": str(path), "licence": "CC0-1.0"}
        config = check({"ingest": {"sources": [source]}, "hardware": {"workers": 1}})
        work = Work(Path(folder) / "out", Path(folder) / "scratch")
        work.out.mkdir()
        work.scratch.mkdir()
        started, stage = time.perf_counter(), ingestion.STAGE
        stage.load_run()(View(config, stage.reads, stage.name), {}, work)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {path.name} | {seconds:.1f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
