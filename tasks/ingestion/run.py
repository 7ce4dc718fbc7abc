"""Stage `ingest`: every source of the settings -> rows.parquet, and unreadable.parquet for what
could not become a row.

Rows stand in the order of the sources, then of paths, then of lines, whatever the number of
workers. Bad input never stops the run: each piece is one entry of the ledger. Only a source that
gives nothing at all is an error.
"""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core import schemas
from tasks.core.errors import PipelineError
from tasks.core.parallel import ordered_map, worker_count
from tasks.core.progress import report, say, track
from tasks.core.stage import Inputs, Summary, Work
from tasks.core.tables import TableWriter
from tasks.ingestion.code import CodeFile, chunks, harvest
from tasks.ingestion.files import Mapped, rows_of_file
from tasks.ingestion.listing import list_code, list_data
from tasks.ingestion.packages import find_package
from tasks.ingestion.rows import Row, Unreadable
from tasks.ingestion.sampling import sample
from tasks.ingestion.sources import source_names
from tasks.ingestion.trees import folder_files, package_files

if TYPE_CHECKING:
    from tasks.core.config import View
    from tasks.core.settings.ingest import FilesSource, FolderSource, PackagesSource, Source

FILES_FOR_PROCESSES = 2000  # fewer are parsed sooner than processes start
REPORT_ROWS = 2000

Items = Iterator[Row | Unreadable]


def run(config: "View", inputs: Inputs, work: Work) -> Summary:
    """Read all sources.

    Raises:
        PipelineError: A source is not there, a file lacks a column altogether, or nothing could be
            read.
    """
    settings = config.ingest.sources
    workers = worker_count(config.hardware.workers)
    counts: Counter[str] = Counter()
    started = time.monotonic()
    with (
        TableWriter(work.out / "rows.parquet", schemas.ROWS) as rows,
        TableWriter(work.out / "unreadable.parquet", schemas.UNREADABLE) as unreadable,
    ):
        for name, source in zip(source_names(settings), settings, strict=True):
            before = rows.rows
            items = _items(source, name, workers, counts)
            if source.max_rows is None:
                _write(items, rows, unreadable)
            else:
                scratch = work.scratch / "all.parquet"
                left_out = _write_sample(items, rows, unreadable, source.max_rows, scratch)
                counts["rows over max_rows"] += left_out
            if rows.rows == before:
                say(f"source {name} gave no rows")
        total, bad = rows.rows, unreadable.rows
    if not total:
        raise _nothing(work.out / "unreadable.parquet", len(settings), bad)
    seconds = time.monotonic() - started
    source_bytes = counts.pop("bytes", 0)
    metrics = {"rows_per_s": total / seconds}
    if source_bytes:
        metrics |= {"source_mb": source_bytes / 1e6, "mb_per_s": source_bytes / 1e6 / seconds}
    plural = "source" if len(settings) == 1 else "sources"
    return Summary(
        line=f"{total:,} rows from {len(settings)} {plural}, {bad:,} unreadable",
        rows_in=total + bad,
        rows_out=total,
        counts={"unreadable": bad, **{name: n for name, n in sorted(counts.items()) if n}},
        metrics=metrics,
    )


def _write(items: Items, rows: TableWriter, unreadable: TableWriter) -> None:
    for item in items:
        (rows if isinstance(item, Row) else unreadable).add(item)


def _write_sample(
    items: Items, rows: TableWriter, unreadable: TableWriter, max_rows: int, scratch: Path
) -> int:
    """Write at most `max_rows` of the rows, by way of a scratch file; how many are left out."""
    with TableWriter(scratch, schemas.ROWS) as everything:
        _write(items, everything, unreadable)
    before = rows.rows
    for batch in sample(scratch, max_rows):
        rows.add_table(batch)
    scratch.unlink()
    return everything.rows - (rows.rows - before)


def _items(source: "Source", name: str, workers: int, counts: Counter[str]) -> Items:
    """Rows and ledger entries of one source, in order."""
    if source.kind == "files":
        return _from_files(source, name, counts)
    if source.kind == "packages":
        return _from_code(_package_files(source, name, counts), source, name, workers, counts)
    listing = list_code(source.path, source.include_tests)
    counts["test files"] += listing.other_files
    return _from_code(
        list(folder_files(listing, name, source.licence)), source, name, workers, counts
    )


def _package_files(source: "PackagesSource", name: str, counts: Counter[str]) -> list[CodeFile]:
    packages = [find_package(package, source.include_tests) for package in source.names]
    return list(chain.from_iterable(package_files(package, name) for package in packages))


def _from_files(source: "FilesSource", name: str, counts: Counter[str]) -> Items:
    listing = list_data(source.path)
    counts["files of another format"] += listing.other_files
    columns = source.columns.model_dump(exclude_none=True)
    mapped = Mapped(name, columns, frozenset(source.required), source.licence)
    done = 0
    for number, path in enumerate(listing.files):
        for item in rows_of_file(listing.root, path, mapped):
            done += 1
            if done % REPORT_ROWS == 0:
                report(f"read {name}", number, len(listing.files), f"{done:,} rows")
            yield item
    report(f"read {name}", len(listing.files), len(listing.files), f"{done:,} rows")


def _from_code(
    files: list[CodeFile],
    source: "PackagesSource | FolderSource",
    name: str,
    workers: int,
    counts: Counter[str],
) -> Items:
    work = list(chunks(files, source.docstring == "keep", source.methods))
    in_use = workers if len(files) >= FILES_FOR_PROCESSES else 1
    for found in track(ordered_map(harvest, work, in_use), f"read {name}", len(work)):
        counts.update(found.skipped)
        counts["bytes"] += found.source_bytes
        yield from found.rows
        yield from found.unreadable


def _nothing(ledger: Path, sources: int, bad: int) -> PipelineError:
    """The error for a run without a single row, told by its first problem."""
    import pyarrow.parquet as pq

    plural = "source" if sources == 1 else "sources"
    if not bad:
        return PipelineError(
            f"ingest read {sources} {plural} and found no rows in them",
            "Point `ingest.sources` to files with rows, or to code with documented functions.",
        )
    first = pq.read_table(ledger).slice(0, 1).to_pylist()[0]
    where = f"{first['path']} line {first['line']}" if first["line"] else first["path"]
    return PipelineError(
        f"ingest read 0 rows from {sources} {plural}, {bad:,} unreadable; "
        f"the first, {where}: {first['problem']}",
        "Mend the input, or map its columns with `columns` of the source.",
    )
