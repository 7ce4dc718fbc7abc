"""Rows and ledger entries of one source, in order, by its kind."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from tasks.core.progress import report, say
from tasks.core.rows.parquet import TableWriter
from tasks.core.stage import Work
from tasks.ingestion.code_file import CodeFile
from tasks.ingestion.code_rows import CodeOptions
from tasks.ingestion.extract_code import extract
from tasks.ingestion.formats.read_rows import SourceReader
from tasks.ingestion.formats.rows.protocol import ColumnMapping
from tasks.ingestion.repository_context import with_context
from tasks.ingestion.rows import CopyNumbers, Row, Unreadable
from tasks.ingestion.sources.digests import DATA_SET, hub_commit
from tasks.ingestion.sources.file_listing import existing_folder, list_code, list_data
from tasks.ingestion.sources.git import plumbing
from tasks.ingestion.sources.git.repository import Repository
from tasks.ingestion.sources.packages import find_package
from tasks.ingestion.sources.trees import folder_files, package_files

if TYPE_CHECKING:
    from tasks.core.settings.ingest import (
        CodeSource,
        FilesSource,
        GitSource,
        HuggingFaceSource,
        RecordSource,
        Source,
    )

REPORT_ROWS = 2000
# files of code that are left out, and how they are read nevertheless
_OWN_SOURCE = " (a source whose `path` is their folder reads them)"
LEFT_OUT = {
    "test files": " (`include_tests: true` reads them)",
    "build outputs": _OWN_SOURCE,
    "vendored files": _OWN_SOURCE,
    "generated files": "",
    "minified files": "",
}
Items = Iterator[Row | Unreadable]


@dataclass(frozen=True)
class ReadContext:
    """What reading a source needs and fills, besides its rows.

    Attributes:
        counts: Everything that was skipped, by reason.
        candidates: Where functions with doctests are written; None: they are not looked for.
        copies: Numbers equal rows of all sources.
        workers: Processes that read code.
        work: Of the stage: how the processes run, and where the row cache is.
    """

    counts: Counter[str]
    candidates: TableWriter | None
    copies: CopyNumbers
    workers: int
    work: Work


def read_source(source: "Source", name: str, context: ReadContext) -> Items:
    """Rows and ledger entries of one source, in order.

    Raises:
        PipelineError: The source does not exist, or a required column is missing from all records.
    """
    if source.kind == "files":
        return _numbered(_from_files(source, name, context.counts), context.copies)
    if source.kind == "huggingface":
        return _numbered(_from_data_set(source, name, context.counts), context.copies)
    if source.kind == "git":
        return _from_git(source, name, context)
    left_out = Counter[str]()
    if source.kind == "packages":
        packages = [find_package(package, source.include_tests) for package in source.names]
        group = source.columns.project
        per_package = (package_files(package, name, group) for package in packages)
        files = list(chain.from_iterable(per_package))
    else:
        listing = list_code(source.path, source.include_tests, source.languages)
        left_out.update(listing.left_out)
        context.counts.update(left_out)
        files = list(folder_files(listing, name, source.licence, source.columns.project))
    return _from_code(files, len(files), left_out, source, name, context)


def _numbered(items: Items, copies: CopyNumbers) -> Items:
    for item in items:
        yield copies.numbered(item) if isinstance(item, Row) else item


def _reader(source: "RecordSource", name: str) -> SourceReader:
    return SourceReader(
        ColumnMapping(
            source=name,
            columns=source.columns.model_dump(exclude_none=True),
            required=frozenset(source.required),
            licence=source.licence,
            format=source.format,
            take=source.take,
        )
    )


def _from_files(source: "FilesSource", name: str, counts: Counter[str]) -> Items:
    listing = list_data(source.path)
    counts["files of another format"] += listing.other_files
    reader = _reader(source, name)
    rows_of_files = (reader.rows_of_file(listing.root, path) for path in listing.files)
    yield from _reported(rows_of_files, len(listing.files), name)
    reader.check_columns()
    counts.update(reader.counts)


def _from_data_set(source: "HuggingFaceSource", name: str, counts: Counter[str]) -> Items:
    from tasks.ingestion.sources.hugging_face import hub_table, local_files

    reader = _reader(source, name)
    subset, split = source.subset, source.split
    if source.path is None:
        files = iter([hub_table(source.hub_id or "", hub_commit(source), subset, split)])
    else:
        files = local_files(existing_folder(source.path, DATA_SET), subset, split)
    yield from _reported((reader.rows_of_records(f.records, f.path) for f in files), None, name)
    reader.check_columns()
    counts.update(reader.counts)


def _reported(files: Iterable[Items], total: int | None, name: str) -> Items:
    """Rows of files, with progress: by files where their number is known, else by rows."""
    done = 0
    for number, items in enumerate(files):
        for item in items:
            done += 1
            if done % REPORT_ROWS == 0:
                report(f"read {name}", number if total else done, total, f"{done:,} rows")
            yield item
    if total:
        report(f"read {name}", total, total, f"{done:,} rows")


def _from_git(source: "GitSource", name: str, context: ReadContext) -> Items:
    folder, commit = plumbing.resolve(source.path, source.revision)
    repository = Repository(
        folder,
        commit,
        name,
        source.licence,
        source.include_tests,
        source.columns.project,
        source.languages,
    )
    if set(source.rows) != {"commits"}:
        context.counts.update(repository.left_out)
        files, left_out = repository.files(), Counter(repository.left_out)
        yield from _from_code(files, len(repository.blobs), left_out, source, name, context)
    if "commits" in source.rows:
        limits = source.min_edit_tokens, source.max_edit_tokens
        yield from _numbered(repository.edits(context.counts, *limits), context.copies)


def _from_code(
    files: Iterable[CodeFile],
    total: int,
    left_out: Counter[str],
    source: "CodeSource",
    name: str,
    context: ReadContext,
) -> Items:
    has_doctests = context.candidates is not None
    options = CodeOptions(
        source.docstring == "keep",
        source.methods,
        has_doctests,
        tuple(source.rows),
        source.window_characters,
        source.path_line,
        source.holes,
        source.character_holes,
    )
    if "context" in source.rows:
        files = with_context(files, source.window_characters)
    files_read, rows_read = Counter[str](), Counter[str]()
    for extracted in extract(files, total, name, options, context.work, context.workers):
        if extracted.skipped:
            context.counts.update(extracted.skipped)
            left_out.update(extracted.skipped)
        context.counts["bytes"] += extracted.source_bytes
        rows = [context.copies.numbered(row) for row in extracted.rows]
        if context.candidates is not None:
            ids: dict[str | int, str] = {r.line: r.row_id for r in rows if r.kind == "function"}
            context.candidates.extend((ids[c[1]], *c[1:]) for c in extracted.candidates)
        files_read[extracted.language] += 1
        rows_read[extracted.language] += len(rows)
        yield from rows
        yield from extracted.unreadable
    files_read.pop("", None)
    number = files_read.total()
    if many := [f"{left_out[r]:,} {r}{how}" for r, how in LEFT_OUT.items() if left_out[r] > number]:
        say(f"source {name}: {number:,} files are read, left out are {', '.join(many)}")
    if set(files_read) - {"Python"}:
        read = [f"{t} {n:,} files, {rows_read[t]:,} rows" for t, n in files_read.most_common()]
        say(f"source {name}: {'; '.join(read)}")
        context.counts.update({f"files read in {t}": n for t, n in files_read.items()})
