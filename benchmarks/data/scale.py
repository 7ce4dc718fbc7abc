"""Memory of all data stages as the number of rows grows.

    python -m benchmarks.data.scale --tokenizer FOLDER [--rows 300000 1000000 3000000]

Rows are questions and answers of random words, as JSON lines: short ones, because memory depends
on the number of rows and not on their length, see `large_rows`. Each stage runs in a process of
its own. Memory is the peak of the anonymous memory of that process and its
workers together, read every 50 ms: it leaves out pages of files, which the kernel frees when memory
is short. The slope is that of the last two numbers of rows, from which the need of 10 million rows
is extrapolated.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from benchmarks.data.filter import run_stage
from benchmarks.data.incremental import tokenizer
from tasks.core.stage import Stage
from tasks.filtering import STAGE as FILTER
from tasks.ingestion import STAGE as INGEST
from tasks.prompting import STAGE as PROMPT
from tasks.tokenization import STAGE as TOKENIZE

STAGES: dict[str, Stage] = {s.name: s for s in (INGEST, FILTER, PROMPT, TOKENIZE)}
TARGET = 10_000_000
PERIOD_S = 0.05
BLOCK, WORDS = 10_000, 12  # rows drawn at once, words of a question and of an answer


def main() -> None:
    """Run every stage on each number of rows, and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_000_000, 3_000_000])
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--tokenizer", type=Path, required=True)
    options.add_argument("--folder", type=Path, help="where files are written")
    options.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.stage:
        run_one(given.stage, given.folder, given.workers)
        return
    print("| stage | rows | s | GiB | bytes per row | GiB at 10 M |\n|---|--:|--:|--:|--:|--:|")
    before: dict[str, tuple[int, float]] = {}
    for rows in given.rows:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=given.folder) as name:
            folder = Path(name)
            write_rows(folder, rows)
            tokenizer(given.tokenizer, folder / "tokenizer")
            for stage in STAGES:
                command = [sys.executable, "-m", "benchmarks.data.scale", "--stage", stage]
                command += ["--folder", str(folder), "--workers", str(given.workers)]
                seconds, peak = measured([*command, "--tokenizer", str(given.tokenizer)])
                cells = ["", ""]
                if stage in before:
                    fewer, less = before[stage]
                    slope = (peak - less) / (rows - fewer)
                    expected = (peak + slope * (TARGET - rows)) / 2**30
                    cells = [f"{slope:.0f}", f"{expected:.2f}"]
                before[stage] = rows, peak
                line = [stage, f"{rows:,}", f"{seconds:.0f}", f"{peak / 2**30:.2f}", *cells]
                print(f"| {' | '.join(line)} |", flush=True)


def write_rows(folder: Path, count: int) -> None:
    """`count` rows in rows.jsonl."""
    chance = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = np.array([a + b + c for a in syllables for b in syllables[:12] for c in syllables[:4]])
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for first in range(0, count, BLOCK):
            drawn = words[chance.integers(0, len(words), (min(BLOCK, count - first), 2, WORDS))]
            for question, answer in drawn.tolist():
                row = {"instruction": " ".join(question), "output": " ".join(answer)}
                file.write(json.dumps(row) + "\n")


def run_one(name: str, folder: Path, workers: int) -> None:
    """Run a stage on what the earlier ones wrote."""
    source = {"kind": "files", "path": str(folder / "rows.jsonl"), "licence": "CC0-1.0"}
    settings = {"ingest": {"sources": [source]}, "hardware": {"workers": workers}}
    inputs = {"base.tokenizer": folder / "tokenizer"}
    for stage in STAGES.values():
        for output in stage.outputs:
            found = list((folder / stage.name).glob(f"{output}*")) if stage.name != name else []
            inputs |= {f"{stage.name}.{output}": path for path in found}
    summary = run_stage(STAGES[name], settings, inputs, folder / name)
    print(f"  {name}: {summary.line}", file=sys.stderr)
    shutil.rmtree(folder / name / "scratch")


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak bytes of a process with its workers."""
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            peak = max(peak, sum(anonymous(process.pid)))
            time.sleep(PERIOD_S)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - started, peak


def anonymous(pid: int) -> Iterator[int]:
    """Anonymous memory of a process and of those it started, in bytes."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        yield from (int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
