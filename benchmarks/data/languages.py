"""Source trees in several languages: what ingest reads of each, how fast, and after an edit.

    python -m benchmarks.data.languages FOLDER... [--rows functions files fill] [--workers 2]

Each folder is the source of a package. They are read one by one for the table, then all together,
then again with 1 % of the files edited and everything else cached.
"""

import argparse
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.data.compare import usage
from tasks.core.languages.registry import BY_NAME, headers_of, language_of
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.ingestion import STAGE
from tasks.ingestion.sources.file_listing import list_code


def main() -> None:
    """Read, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--rows", nargs="*", default=["functions"])
    options.add_argument("--workers", type=int, default=2)
    given = options.parse_args()
    STAGE.load_run()
    print(f"{'package':<40}{'language':<12}{'files':>7}{'MB':>7}{'functions':>11}{'errors':>8}")
    with tempfile.TemporaryDirectory(prefix="finetune-languages-") as name:
        temporary = Path(name)
        for number, folder in enumerate(given.folders):
            shutil.copytree(folder, temporary / "code" / folder.name)
            show(temporary / "code" / folder.name, temporary / str(number))
        code, shards = temporary / "code", temporary / "shards" / "own"
        before = usage()[0]
        cold, metrics = ingest(code, temporary / "cold", shards, given.rows, given.workers)
        cpu = usage()[0] - before
        files = list_code(str(code), include_tests=False).files
        for path in files[:: max(1, len(files) // -(-len(files) // 100))]:
            with (code / path).open("a") as file:
                file.write("\n")
        before = usage()[0]
        warm, _ = ingest(code, temporary / "warm", shards, given.rows, given.workers)
        warm_cpu = usage()[0] - before
    mb = metrics["source_mb"]
    print(f"\n{', '.join(given.rows)}: {mb:.1f} MB in {cold:.2f} s, {mb / cold:.1f} MB/s; ", end="")
    print(f"{cpu:.2f} CPU s, {mb / cpu:.1f} MB per CPU s")
    print(f"1 % of {len(files):,} files edited: {warm:.2f} s, {100 * warm / cold:.1f} %; ", end="")
    print(f"{warm_cpu:.2f} CPU s, {100 * warm_cpu / cpu:.1f} %")


def show(folder: Path, out: Path) -> None:
    """The lines of one package."""
    listing = list_code(str(folder), include_tests=False)
    ingest(folder, out, None, ["functions"], 1)
    functions = Counter(pq.read_table(out / "rows.parquet")["language"].to_pylist())
    bad = pq.read_table(out / "unreadable.parquet")["path"].to_pylist()
    errors, files, sizes = Counter[str](), Counter[str](), Counter[str]()
    for path in listing.files:
        content = (folder / path).read_bytes()
        if language := language_of(path, content, headers_of(listing.files)):
            files[language.name] += 1
            sizes[language.name] += len(content)
            errors[language.name] += path in bad
    for name, count in files.most_common():
        print(
            f"{folder.name:<40}{BY_NAME[name].title:<12}{count:>7,}{sizes[name] / 1e6:>7.2f}"
            f"{functions[name]:>11,}{errors[name]:>8,}",
            flush=True,
        )


def ingest(
    code: Path, out: Path, shards: Path | None, rows: list[str], workers: int
) -> tuple[float, Mapping[str, Any]]:
    """Seconds of the stage ingest on a folder, and what it measured."""
    (out / "scratch").mkdir(parents=True)
    source = {"kind": "folder", "path": str(code), "licence": "MIT", "rows": rows}
    config = check({"ingest": {"sources": [source]}, "hardware": {"workers": workers}})
    if shards:
        shards.parent.mkdir(exist_ok=True)
    work = Work(out, out / "scratch", shards, "benchmark" if shards else "")
    begin = time.perf_counter()
    summary = STAGE.load_run()(View(config, STAGE.reads, "ingest"), {}, work)
    return time.perf_counter() - begin, summary.metrics


if __name__ == "__main__":
    main()
