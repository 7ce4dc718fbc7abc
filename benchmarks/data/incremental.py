"""Cost of a second run after a small change: of files for ingest, of rows for later stages.

    python -m benchmarks.data.incremental --tokenizer FOLDER [--rows 20000] [--workers 2]

The rows are those of `benchmarks.data.filter`. A cold run fills the shards; then the same three
stages run again on 1 % more rows, on 1 % fewer, with one row edited, and with all rows in another
order. Each is compared, file by file, with a cold run on the same rows: "same" says that all bytes
agree. Stages run in one process with its workers, libraries loaded before; second runs are medians,
each begins with what the first one left, and the share is that of the median of all cold runs.
Ingest reads a copy of the standard library and of installed packages, with 1 % of the files edited.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data.filter import make_rows
from tasks.core.rows import row_schema
from tasks.core.rows.parquet import TableWriter
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.filtering import STAGE as FILTER
from tasks.ingestion import STAGE as INGEST
from tasks.ingestion.rows import text_id
from tasks.prompting import STAGE as PROMPT
from tasks.tokenization import STAGE as TOKENIZE

STAGES = (FILTER, PROMPT, TOKENIZE)
SPLITS = ("train", "validation", "test")
CHANGES = ("nothing changed", "1 % more rows", "1 % fewer rows", "one row edited", "another order")


def main() -> None:
    """Run, compare, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--tokenizer", type=Path, required=True)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-incremental-") as name:
        folder = Path(name)
        inputs = {"base.tokenizer": tokenizer(given.tokenizer, folder / "tokenizer")}
        rows = pq.read_table(make_rows(folder, given.rows + given.rows // 100))
        inputs["ingest.executable"] = folder / "executable.parquet"
        for stage in (INGEST, *STAGES):
            stage.load_run()
        show_ingest(folder, given.workers, given.repeats)
        warm_up(rows.take(np.arange(0, len(rows), 20)), folder / "first", inputs, given.workers)
        first = rows.slice(0, given.rows)
        shards = folder / "shards"
        colds = [run_all(first, folder / "cold", shards, inputs, given.workers)]
        print(f"{given.rows:,} rows, {given.workers} workers, {given.repeats} second runs each\n")
        print(
            f"{'':<18}"
            + "".join(f"{s.name:>10}" for s in STAGES)
            + f"{'all':>10}{'share':>8}  same"
        )
        lines = []
        for change in CHANGES:
            changed = edited(rows, given.rows, change)
            warms = []
            for _ in range(given.repeats):
                own = copied(shards, folder / "own")
                warms.append(run_all(changed, folder / "warm", own, inputs, given.workers))
            colds.append(
                run_all(changed, folder / "reference", folder / "fresh", inputs, given.workers)
            )
            shutil.rmtree(folder / "fresh")
            same = contents(folder / "warm") == contents(folder / "reference")
            lines.append((change, middle(warms), "yes" if same else "NO"))
        cold = middle(colds)
        show("cold", cold, None, "")
        for change, warm, result in lines:
            show(change, warm, sum(cold.values()), result)


def middle(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each stage's seconds."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def copied(shards: Path, target: Path) -> Path:
    """A copy of shards, flushed to the disk."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(shards, target)
    os.sync()
    return target


def show_ingest(folder: Path, workers: int, repeats: int) -> None:
    """Ingest, cold and after edits."""
    code = folder / "code"
    copy_code(code)
    shards = folder / "ingest"
    cold, result = ingest(code, folder / "first", shards / "own", workers)
    size_mb = result["source_mb"]
    print(f"ingest, {size_mb:,.0f} MB: {cold:.2f} s, {size_mb / cold:.1f} MB/s")
    files = sorted(code.rglob("*.py"))
    for path in files[:: len(files) // (len(files) // 100)]:
        with path.open("ab") as file:
            file.write(b'\n\ndef added(x):\n    """Say x once more."""\n    return x\n')
    warms = []
    for _ in range(repeats):
        shutil.rmtree(folder / "second", ignore_errors=True)
        own = copied(shards, folder / "ingest-again") / "own"
        warms.append(ingest(code, folder / "second", own, workers)[0])
    warm = statistics.median(warms)
    cold, _ = ingest(code, folder / "third", folder / "other" / "own", workers)
    names = ("rows.parquet", "unreadable.parquet", "executable.parquet")
    second, third = ([(folder / n / f).read_bytes() for f in names] for n in ("second", "third"))
    same = "yes" if second == third else "NO"
    print(
        f"1 % of {len(files):,} files edited: {warm:.2f} s, {100 * warm / cold:.1f} %, "
        f"same: {same}\n"
    )


def copy_code(folder: Path) -> None:
    """The Python files of the standard library and of packages."""
    roots = [Path(sysconfig.get_path("stdlib"))]
    for name in ("networkx", "sympy", "scipy", "pandas"):
        found = importlib.util.find_spec(name)
        roots += [Path(p) for p in (found.submodule_search_locations or ())] if found else []
    for root in roots:
        for path in root.rglob("*.py"):
            if "site-packages" not in path.relative_to(root).parts:
                target = folder / root.name / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def ingest(code: Path, out: Path, shards: Path, workers: int) -> tuple[float, Mapping[str, float]]:
    """Seconds of the stage ingest on a folder, and what it measured."""
    (out / "scratch").mkdir(parents=True)
    shards.parent.mkdir(exist_ok=True)
    source = {"kind": "folder", "path": str(code), "licence": "MIT"}
    config = check({"ingest": {"sources": [source]}, "hardware": {"workers": workers}})
    work = Work(out, out / "scratch", shards, "benchmark")
    begin = time.perf_counter()
    summary = INGEST.load_run()(View(config, INGEST.reads, "ingest"), {}, work)
    return time.perf_counter() - begin, summary.metrics


def show(name: str, seconds: dict[str, float], cold: float | None, same: str) -> None:
    """Print a line of the table."""
    whole = sum(seconds.values())
    share = f"{100 * whole / cold:>6.1f} %" if cold else " " * 8
    cells = "".join(f"{seconds[stage.name]:>10.2f}" for stage in STAGES)
    print(f"{name:<18}{cells}{whole:>10.2f}{share}  {same}", flush=True)


def edited(rows: pa.Table, count: int, change: str) -> pa.Table:
    """The first `count` rows, changed; `rows` has 1 % more."""
    chance = np.random.default_rng(0)
    some = np.sort(chance.permutation(count)[: count // 100])
    if change == "1 % more rows":
        order = np.arange(len(rows), dtype=float)
        order[count:] = chance.integers(0, count, len(rows) - count) + 0.5  # among the old ones
        return rows.take(np.argsort(order, kind="stable"))
    first = rows.slice(0, count)
    if change == "1 % fewer rows":
        return first.filter(pa.array(~np.isin(np.arange(count), some)))
    if change == "one row edited":
        texts = first.column("output").to_pylist()
        texts[count // 2] += "\n# edited\n"
        ids = first.column("row_id").to_pylist()
        ids[count // 2] = text_id(texts[count // 2])
        for name, values in (("output", texts), ("row_id", ids)):
            first = first.set_column(first.schema.get_field_index(name), name, pa.array(values))
        return first
    if change == "another order":
        return first.take(chance.permutation(count))
    return first


def run_all(
    rows: pa.Table, out: Path, shards: Path, inputs: dict[str, Path], workers: int
) -> dict[str, float]:
    """Seconds of each stage on some rows; outputs go to folders below `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    given = {"tokenize": {"window_tokens": 4096}, "hardware": {"workers": workers}}
    config = check(given)
    paths = {**inputs, "ingest.rows": out / "rows.parquet"}
    with TableWriter(paths["ingest.rows"], row_schema.ROWS) as writer:
        writer.add_table(rows.cast(row_schema.ROWS))
    seconds = {}
    for stage in STAGES:
        own, scratch = out / stage.name, out / "scratch"
        own.mkdir()
        scratch.mkdir(exist_ok=True)
        work = Work(own, scratch, shards / stage.name, "benchmark")
        begin = time.perf_counter()
        stage.load_run()(View(config, stage.reads, stage.name), paths, work)
        seconds[stage.name] = time.perf_counter() - begin
        paths |= {"filter.kept": out / "filter" / "kept.parquet"}
        paths |= {"prompt.split": out / "prompt" / "split.json"}
        paths |= {f"prompt.{split}": out / "prompt" / f"{split}.parquet" for split in SPLITS}
    return seconds


def warm_up(rows: pa.Table, out: Path, inputs: dict[str, Path], workers: int) -> None:
    """Run once, so that everything is loaded that is loaded on first use."""
    run_all(rows, out, out / "shards", inputs, workers)


def tokenizer(given: Path, folder: Path) -> Path:
    """A tokenizer folder in the form of the stage `base`."""
    shutil.copytree(given, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    limits: dict[str, Any] = {"max_tokens": 8192, "model_type": "llama", "vocab_size": 49152}
    (folder / "model_limits.json").write_text(json.dumps(limits))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for stage in STAGES for path in (folder / stage.name).rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(files) if p.is_file()}


if __name__ == "__main__":
    main()
