"""Speed and memory of ingest on a folder of code, and on many copies of it.

    python -m benchmarks.data.ingest [--copies 1 20] [--workers 2]

The code is a copy of the standard library and of installed packages, all Python files. Each number
of copies is read by a process of its own; memory is that of the largest process.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.data.compare import usage
from benchmarks.data.incremental import copy_code, ingest
from tasks.ingestion import STAGE


def main() -> None:
    """Copy, read, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--copies", type=int, nargs="*", default=[1, 20])
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.folder:
        print(json.dumps(measured(given.folder, given.workers)))
        return
    print(f"{'copies':>6}{'MB':>8}{'rows':>11}{'s':>8}{'MB/s':>7}{'CPU s':>8}{'MiB':>7}")
    with tempfile.TemporaryDirectory(prefix="finetune-ingest-") as name:
        code = Path(name) / "code"
        copy_code(code / "0")
        for copies in given.copies:
            for number in range(1, copies):
                if not (code / str(number)).exists():
                    shutil.copytree(code / "0", code / str(number))
            words = [sys.executable, "-m", "benchmarks.data.ingest", "--folder", str(code)]
            command = [*words, "--workers", str(given.workers)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            mb, rows, seconds, cpu, mib = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{copies:>6}{mb:>8,.0f}{rows:>11,.0f}{seconds:>8.1f}{mb / seconds:>7.1f}"
                f"{cpu:>8.1f}{mib:>7,.0f}",
                flush=True,
            )


def measured(code: Path, workers: int) -> tuple[float, ...]:
    """MB, rows, seconds, CPU seconds and MiB of reading a folder."""
    STAGE.load_run()
    before = usage()[0]
    with tempfile.TemporaryDirectory(prefix="finetune-ingest-") as name:
        seconds, found = ingest(code, Path(name) / "out", Path(name) / "shards", workers)
    cpu, mib = usage()
    return found["source_mb"], found["rows_per_s"] * seconds, seconds, cpu - before, mib


if __name__ == "__main__":
    main()
