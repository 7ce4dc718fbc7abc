"""CPU time of the stage `filter` for rows that share a preamble, and for rows that do not.

    python -m benchmarks.data.preamble [--rows 20000]

Every question has 120 words of preamble and 15 of its own, every answer 40; without a shared
preamble, the 120 words differ from row to row.
"""

import argparse
import random
import string
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import filtering
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.ingestion.executable import EXECUTABLE
from tests.conftest import ingested_row


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=20_000)
    rows = options.parse_args().rows
    seconds = {name: measure(rows, name == "shared") for name in ("shared", "different")}
    print("| preamble | CPU s | kept |\n|---|--:|--:|")
    for name, (taken, kept) in seconds.items():
        print(f"| {name} | {taken:.1f} | {kept:,} |")
    print(f"ratio {seconds['shared'][0] / seconds['different'][0]:.2f}")


def measure(rows: int, shared: bool) -> tuple[float, int]:
    """CPU seconds of the stage in one process, and the rows that it keeps."""
    draw = random.Random(0)
    known = ["".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(20_000)]

    def words(count: int) -> str:
        return " ".join(draw.choices(known, k=count))

    preamble = words(120)
    table = [
        ingested_row(
            n,
            instruction=f"{preamble if shared else words(120)} {words(15)}",
            output="\n".join(words(8) for _ in range(5)),
        )
        for n in range(rows)
    ]
    with tempfile.TemporaryDirectory() as folder:
        inputs = {
            "ingest.rows": Path(folder) / "rows.parquet",
            "ingest.executable": Path(folder) / "executable.parquet",
        }
        pq.write_table(pa.Table.from_pylist(table, row_schema.ROWS), inputs["ingest.rows"])
        pq.write_table(EXECUTABLE.empty_table(), inputs["ingest.executable"])
        work = Work(Path(folder) / "out", Path(folder) / "scratch")
        work.out.mkdir()
        work.scratch.mkdir()
        stage, config = filtering.STAGE, check({"hardware": {"workers": 1}})
        run, started = stage.load_run(), time.process_time()
        summary = run(View(config, stage.reads, stage.name), inputs, work)
        return time.process_time() - started, summary.rows_out or 0


if __name__ == "__main__":
    main()
