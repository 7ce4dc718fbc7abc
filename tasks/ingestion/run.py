"""Stage `ingest`: every source of the settings -> rows.parquet, and unreadable.parquet for what
could not become a row.

Rows stand in the order of the sources, then of paths, then of lines, whatever the number of
workers. Bad input never stops the run: each piece is one entry of the ledger. Only a source that
gives nothing at all is an error.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import PipelineError
from tasks.core.progress import report, say
from tasks.core.rows import row_schema
from tasks.core.rows.parquet import TableWriter
from tasks.core.sandbox import Sandbox
from tasks.core.stage import Inputs, Summary, Work
from tasks.core.system.parallel import worker_count
from tasks.ingestion.code_rows import CodeFile
from tasks.ingestion.executable import (
    CANDIDATES,
    EXECUTABLE,
    judge_all,
    spooled,
)
from tasks.ingestion.extract_code import extract
from tasks.ingestion.file_listing import list_code, list_data
from tasks.ingestion.formats.records import (
    Mapped,
    Seen,
    rows_of_file,
    rows_of_records,
)
from tasks.ingestion.git import plumbing
from tasks.ingestion.git.repository import Repository
from tasks.ingestion.packages import find_package
from tasks.ingestion.rows import Row, Unreadable
from tasks.ingestion.sampling import sample, thin
from tasks.ingestion.source_trees import folder_files, package_files
from tasks.ingestion.sources import data_set_folder, hub_commit, source_names

if TYPE_CHECKING:
    from tasks.core.settings.config import View
    from tasks.core.settings.ingest import (
        CodeSource,
        FilesSource,
        GitSource,
        HuggingFaceSource,
        PackagesSource,
        RecordSource,
        Source,
    )

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
    spool = work.scratch / "candidates.parquet"
    with (
        TableWriter(spool, CANDIDATES) as candidates,
        TableWriter(work.out / "rows.parquet", row_schema.ROWS) as rows,
        TableWriter(work.out / "unreadable.parquet", row_schema.UNREADABLE) as unreadable,
    ):
        for name, source in zip(source_names(settings), settings, strict=True):
            before = rows.rows
            spooled_to = candidates if config.ingest.doctests else None
            into = Found(counts, spooled_to, workers, work)
            items = _items(source, name, into)
            if source.weight < 1:
                items = thin(items, source.weight, counts)
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
    executable = _run_doctests(config, spool, work, counts)
    seconds = time.monotonic() - started
    source_bytes = counts.pop("bytes", 0)
    metrics = {"rows_per_s": total / seconds}
    if source_bytes:
        metrics |= {"source_mb": source_bytes / 1e6, "mb_per_s": source_bytes / 1e6 / seconds}
    if config.ingest.doctests:
        metrics["executable_rows"] = executable
    plural = "source" if len(settings) == 1 else "sources"
    return Summary(
        line=f"{total:,} rows from {len(settings)} {plural}, {bad:,} unreadable",
        rows_in=total + bad,
        rows_out=total,
        counts={"unreadable": bad, **{name: n for name, n in sorted(counts.items()) if n}},
        metrics=metrics,
    )


@dataclass(frozen=True)
class Found:
    """Where reading notes what is no row.

    Attributes:
        counts: What was passed over, by reason.
        candidates: Functions that can be run; None: not looked for.
        workers: Processes to read code with.
        work: Of the stage: how they are used, and where files that were read are remembered.
    """

    counts: Counter[str]
    candidates: TableWriter | None
    workers: int
    work: Work


def _run_doctests(config: "View", spool: Path, work: Work, counts: Counter[str]) -> int:
    """Write executable.parquet; how many rows are in it."""
    settings = config.ingest
    out = work.out
    with TableWriter(out / "executable.parquet", EXECUTABLE) as executable:
        if settings.doctests:
            sandbox = Sandbox.best(settings.min_sandbox, workers=config.hardware.workers)
            timeout_s = settings.doctest_timeout_s
            entries = judge_all(spool, out / "rows.parquet", sandbox, timeout_s, counts, work)
            executable.extend(entries)
    spool.unlink()
    return executable.rows


def _write(items: Items, rows: TableWriter, unreadable: TableWriter) -> None:
    for item in items:
        (rows if isinstance(item, Row) else unreadable).add(item)


def _write_sample(
    items: Items, rows: TableWriter, unreadable: TableWriter, max_rows: int, scratch: Path
) -> int:
    """Write at most `max_rows` of the rows, by way of a scratch file; how many are left out."""
    with TableWriter(scratch, row_schema.ROWS) as everything:
        _write(items, everything, unreadable)
    before = rows.rows
    for batch in sample(scratch, max_rows):
        rows.add_table(batch)
    scratch.unlink()
    return everything.rows - (rows.rows - before)


def _items(source: "Source", name: str, into: Found) -> Items:
    """Rows and ledger entries of one source, in order."""
    if source.kind == "files":
        return _from_files(source, name, into.counts)
    if source.kind == "huggingface":
        return _from_data_set(source, name)
    if source.kind == "git":
        return _from_git(source, name, into)
    if source.kind == "packages":
        files = _package_files(source, name)
    else:
        listing = list_code(source.path, source.include_tests)
        into.counts["test files"] += listing.other_files
        files = list(folder_files(listing, name, source.licence))
    return _from_code(files, len(files), source, name, into)


def _package_files(source: "PackagesSource", name: str) -> list[CodeFile]:
    packages = [find_package(package, source.include_tests) for package in source.names]
    return list(chain.from_iterable(package_files(package, name) for package in packages))


def _mapped(source: "RecordSource", name: str) -> Mapped:
    columns = source.columns.model_dump(exclude_none=True)
    return Mapped(name, columns, frozenset(source.required), source.licence)


def _from_files(source: "FilesSource", name: str, counts: Counter[str]) -> Items:
    listing = list_data(source.path)
    counts["files of another format"] += listing.other_files
    mapped, seen = _mapped(source, name), Seen()
    done = 0
    for number, path in enumerate(listing.files):
        for item in rows_of_file(listing.root, path, mapped, seen):
            done += 1
            if done % REPORT_ROWS == 0:
                report(f"read {name}", number, len(listing.files), f"{done:,} rows")
            yield item
    report(f"read {name}", len(listing.files), len(listing.files), f"{done:,} rows")
    seen.check(mapped)


def _from_data_set(source: "HuggingFaceSource", name: str) -> Items:
    from tasks.ingestion.hugging_face import hub_part, local_parts

    mapped, seen = _mapped(source, name), Seen()
    columns = tuple(mapped.columns.values())
    if source.path is None:
        commit = hub_commit(source)
        parts = iter([hub_part(source.hub_id or "", commit, source.subset, source.split, columns)])
    else:
        folder = data_set_folder(source.path)
        parts = local_parts(folder, source.subset, source.split, columns)
    done = 0
    for part in parts:
        for item in rows_of_records(part.items, part.path, mapped, seen):
            done += 1
            if done % REPORT_ROWS == 0:
                report(f"read {name}", done, None, part.path)
            yield item
    seen.check(mapped)


def _from_git(source: "GitSource", name: str, into: Found) -> Items:
    folder, commit = plumbing.resolve(source.path, source.revision)
    repository = Repository(folder, commit, name, source.licence, source.include_tests)
    if source.functions:
        into.counts["test files"] += repository.test_files
        yield from _from_code(repository.files(), len(repository.blobs), source, name, into)
    if source.commits:
        yield from repository.edits(into.counts, source.min_edit_tokens, source.max_edit_tokens)


def _from_code(
    files: Iterable[CodeFile], total: int, source: "CodeSource", name: str, into: Found
) -> Items:
    keep_docstring = source.docstring == "keep"
    options = (keep_docstring, source.methods, into.candidates is not None)
    for found in extract(files, total, name, options, into.work, into.workers):
        into.counts.update(found.skipped)
        into.counts["bytes"] += found.source_bytes
        if into.candidates is not None:
            into.candidates.extend(spooled(*candidate) for candidate in found.candidates)
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
