"""Speed and memory of the stage `filter`.

    python -m benchmarks.data.filter [--rows 20000] [--workers 2]

Rows are documented functions of the standard library and of installed packages, repeated with
renamed identifiers up to the number of rows. Each case runs in its own process. "CPU s" is the sum
over all processes: on a busy machine, 2 x rows / CPU s is the speed of two free cores. Memory is
that of the largest process.
"""

import argparse
import hashlib
import json
import keyword
import multiprocessing
import re
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import filtering, ingestion
from tasks.core.rows import row_schema
from tasks.core.rows.parquet import GROUP_ROWS
from tasks.core.settings.config import View, check
from tasks.core.stage import Stage, Summary, Work

PACKAGES = ("more-itertools", "toolz", "boltons", "networkx", "sympy", "scipy", "numpy", "pandas")
OFF: dict[str, Any] = {"near_duplicates": {"enabled": False}}
CASES: dict[str, dict[str, Any]] = {
    "all rules": {},
    "no near duplicates": OFF,
    "25 bands of 10": {"near_duplicates": {"bands": 25, "rows_per_band": 10}},
    "no benchmark": {"decontamination": {"benchmarks": []}},
}
COLUMNS = {
    "case": 20,
    "wall s": 8,
    "rows/s": 9,
    "CPU s": 8,
    "2 cores": 9,
    "MiB": 7,
    "kept": 9,
    "near": 7,
}
NAME = re.compile(r"\b[a-z_][a-z_]{3,}\b")
KEYWORDS = frozenset(keyword.kwlist)


def main() -> None:
    """Create the rows, run the cases, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = make_rows(Path(folder), given.rows)
        texts = pq.read_table(rows, columns=["instruction", "output"])
        size = sum(texts.column(name).nbytes for name in texts.column_names) / texts.num_rows
        print(f"{texts.num_rows:,} rows of {size:,.0f} bytes, {given.workers} workers\n")
        print("".join(f"{name:>{width}}" for name, width in COLUMNS.items()))
        for case in given.cases:
            # a fresh process: its memory and time are those of the case alone
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found = pool.submit(measure, str(rows), CASES[case], given.workers).result()
            cells = (
                case,
                f"{found['wall']:.1f}",
                f"{given.rows / found['wall']:,.0f}",
                f"{found['cpu']:.1f}",
                f"{2 * given.rows / found['cpu']:,.0f}",
                f"{found['mib']:,.0f}",
                f"{found['kept']:,}",
                f"{found['near']:,}",
            )
            widths = COLUMNS.values()
            line = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            print(line, flush=True)


def make_rows(folder: Path, count: int) -> Path:
    """`count` rows (`row_schema.ROWS`) in a Parquet file."""
    sources = [
        {"kind": "packages", "name": "python", "names": ["python"]},
        *({"kind": "packages", "name": name, "names": [name]} for name in PACKAGES if has(name)),
    ]
    run_stage(ingestion.STAGE, {"ingest": {"sources": sources}}, {}, folder)
    real = pq.read_table(folder / "rows.parquet", columns=row_schema.ROWS.names)
    path = folder / "many.parquet"
    with pq.ParquetWriter(path, row_schema.ROWS, compression="zstd") as writer:
        for table in many(real, count):
            writer.write_table(table.cast(row_schema.ROWS), row_group_size=GROUP_ROWS)
    return path


def many(real: pa.Table, count: int) -> Iterator[pa.Table]:
    """The real rows, then renamed versions of them, `count` in all."""
    done = 0
    while done < count:
        version = done // len(real)
        table = real.slice(0, count - done)
        yield renamed(table, version) if version else table
        done += len(table)


def renamed(table: pa.Table, version: int) -> pa.Table:
    """Rows with about half of their identifiers renamed."""
    end = f"_{version}"

    def other(match: re.Match[str]) -> str:
        word = match[0]
        return word if word in KEYWORDS or (len(word) + version) % 2 else word + end

    for name in ("instruction", "output"):
        texts = [NAME.sub(other, text) for text in table.column(name).to_pylist()]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(texts))
    ids = [hashlib.md5((i + end).encode()).hexdigest() for i in table.column("row_id").to_pylist()]
    return table.set_column(0, "row_id", pa.array(ids))


def has(package: str) -> bool:
    """Whether a package is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def run_stage(
    stage: Stage, settings: dict[str, Any], inputs: dict[str, Path], out: Path
) -> Summary:
    """Run a stage alone, outside the store."""
    scratch = out / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    view = View(check(settings), stage.reads, stage.name)
    return stage.load_run()(view, inputs, Work(out, scratch))


def measure(rows: str, settings: dict[str, Any], workers: int) -> dict[str, float]:
    """Time and memory of one run of the stage."""
    given = {"filter": settings, "hardware": {"workers": workers}}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        filtering.STAGE.load_run()
        cpu, begin = time.process_time(), time.perf_counter()
        executable = Path(rows).with_name("executable.parquet")
        inputs = {"ingest.rows": Path(rows), "ingest.executable": executable}
        summary = run_stage(filtering.STAGE, given, inputs, out)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        funnel = json.loads((out / "funnel.json").read_text())
    own, others = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    near = next((r["rows"] for r in funnel["reasons"] if r["rule"] == "near_duplicate"), 0)
    return {
        "wall": wall,
        "cpu": cpu + others.ru_utime + others.ru_stime,
        "mib": max(own.ru_maxrss, others.ru_maxrss) / 1024,
        "kept": summary.rows_out or 0,
        "near": near,
    }


if __name__ == "__main__":
    main()
