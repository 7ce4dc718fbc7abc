"""Stage `ingest`: all sources of the settings -> rows.parquet, unreadable.parquet for input that
could not become a row, and executable.parquet for functions that pass their doctests.

Rows are in the order of the sources, then of paths, then of lines, whatever the number of workers.
Bad input never stops the run: each bad record or file is one ledger entry. It is an error only if
no source gives any row.
"""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.progress import say
from tasks.core.rows import row_schema
from tasks.core.rows.parquet import TableWriter
from tasks.core.sandbox import Sandbox
from tasks.core.stage import Inputs, Summary, Work
from tasks.core.system.parallel import worker_count
from tasks.ingestion.executable import CANDIDATES, EXECUTABLE, run_doctests
from tasks.ingestion.formats.read_rows import READ_AS, RENDERED, unused_with_meaning
from tasks.ingestion.remedies import no_rows
from tasks.ingestion.rows import CopyNumbers, Row
from tasks.ingestion.sampling import sample, weighted
from tasks.ingestion.sources.digests import source_names
from tasks.ingestion.sources.read import Items, ReadContext, read_source

if TYPE_CHECKING:
    from tasks.core.settings.config import View
    from tasks.core.settings.ingest import Source

# kind of a row -> the row type of the settings that it is made for
ROW_TYPES = {
    "function": "functions",
    "file": "files",
    "fill": "fill",
    "context": "context",
    "edit": "commits",
}


def run(config: "View", inputs: Inputs, work: Work) -> Summary:
    """Read all sources.

    Raises:
        PipelineError: A source does not exist, all its records lack a column, or there is no row.
    """
    settings = config.ingest.sources
    workers = worker_count(config.hardware.workers)
    counts: Counter[str] = Counter()
    started = time.monotonic()
    candidates_path = work.scratch / "candidates.parquet"
    with (
        TableWriter(candidates_path, CANDIDATES) as candidates,
        TableWriter(work.out / "rows.parquet", row_schema.ROWS) as rows,
        TableWriter(work.out / "unreadable.parquet", row_schema.UNREADABLE) as unreadable,
    ):
        wanted = candidates if config.ingest.doctests else None
        context = ReadContext(counts, wanted, CopyNumbers(), workers, work)
        for name, source in zip(source_names(settings), settings, strict=True):
            before = rows.rows
            items = read_source(source, name, context)
            weights = _weights(source)
            if set(weights.values()) != {1.0}:
                items = weighted(items, weights, counts)
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
        counts.pop("bytes", 0)
        raise no_rows(work.out / "unreadable.parquet", _sources(len(settings)), bad, counts)
    executable = _write_executable(config, candidates_path, work, counts)
    seconds = time.monotonic() - started
    source_bytes = counts.pop("bytes", 0)
    metrics = {"rows_per_s": total / seconds}
    if source_bytes:
        metrics |= {"source_mb": source_bytes / 1e6, "mb_per_s": source_bytes / 1e6 / seconds}
    if config.ingest.doctests:
        metrics["executable_rows"] = executable
    return Summary(
        line=f"{total:,} rows from {_sources(len(settings))}, {bad:,} unreadable{_notes(counts)}",
        rows_in=total + bad,
        rows_out=total,
        counts={"unreadable": bad, **{name: n for name, n in sorted(counts.items()) if n}},
        metrics=metrics,
    )


def _weights(source: "Source") -> dict[str, float]:
    """How often a row of each kind is trained on: the weight of its source, times the share of its
    row type. "" stands for kinds that have none."""
    shares = getattr(source, "shares", None)  # of code only
    own = {kind: getattr(shares, name) for kind, name in ROW_TYPES.items()} if shares else {}
    return {"": source.weight, **{kind: source.weight * share for kind, share in own.items()}}


def _write(items: Items, rows: TableWriter, unreadable: TableWriter) -> None:
    for item in items:
        (rows if isinstance(item, Row) else unreadable).add(item)


def _write_sample(
    items: Items, rows: TableWriter, unreadable: TableWriter, max_rows: int, scratch: Path
) -> int:
    """Write at most `max_rows` of the rows, through a scratch file; returns how many are left
    out."""
    with TableWriter(scratch, row_schema.ROWS) as everything:
        _write(items, everything, unreadable)
    before = rows.rows
    for batch in sample(scratch, max_rows):
        rows.add_table(batch)
    scratch.unlink()
    return everything.rows - (rows.rows - before)


def _write_executable(config: "View", candidates: Path, work: Work, counts: Counter[str]) -> int:
    """Write executable.parquet; returns its number of rows."""
    settings = config.ingest
    with TableWriter(work.out / "executable.parquet", EXECUTABLE) as executable:
        if settings.doctests:
            sandbox = Sandbox.best(
                settings.min_sandbox, workers=config.hardware.workers, purpose="doctests run"
            )
            rows, timeout_s = work.out / "rows.parquet", settings.doctest_timeout_s
            executable.extend(run_doctests(candidates, rows, sandbox, timeout_s, counts, work))
    candidates.unlink()
    return executable.rows


def _sources(number: int) -> str:
    return f"{number} source" if number == 1 else f"{number} sources"


def _notes(counts: Counter[str]) -> str:
    """Formats other than the plain one, and unused columns that matter, for the summary line."""
    formats = [
        name.removeprefix(READ_AS).split(" ")[0]
        for name in sorted(counts)
        if name.startswith(READ_AS)
    ]
    others = [name for name in dict.fromkeys(formats) if name != "instruction"]
    unused = unused_with_meaning(counts)
    notes = f"; read as {', '.join(dict.fromkeys(formats))}" if others else ""
    rendered = "".join(f"; {name}" for name in sorted(counts) if name.startswith(RENDERED))
    return notes + rendered + (f"; not used: {', '.join(unused)}" if unused else "")
