"""Records of instruction files and data sets -> rows, or the reason why not."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.readers import (
    Problem,
    Record,
    column_names,
    read_records,
)
from tasks.ingestion.rows import (
    Row,
    RowIds,
    Unreadable,
    excerpt,
    printable,
    text_problem,
)

TEXTS = ("instruction", "input", "output")
OPTIONAL_BY_DEFAULT = (
    "input"  # absent in many data sets; any other name was chosen, so it must be there
)
SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class Mapped:
    """How the records of a source become rows.

    Attributes:
        columns: {"instruction" | "input" | "output" | "project" | "licence": column}; the last two
            may be absent.
        required: Texts that may not be empty.
        licence: SPDX expression by the user's statement, "" if none.
    """

    source: str
    columns: Mapping[str, str]
    required: frozenset[str]
    licence: str

    def must_exist(self) -> list[tuple[str, str]]:
        """(role, column) of those that a file must have at all: what is required, and what the
        settings name."""
        return [
            (role, column)
            for role, column in self.columns.items()
            if role in self.required or column != role or role not in TEXTS
        ]


@dataclass
class Seen:
    """What the files of one source held, to tell a column that is in none of them."""

    records: int = 0
    path: str = ""
    columns: dict[str, None] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)

    def check(self, mapped: Mapped) -> None:
        """Look at the whole source.

        Raises:
            PipelineError: Not one of its records had a column that must be there.
        """
        absent = [
            (role, column)
            for role, column in mapped.must_exist()
            if self.records and self.missing[column] == self.records
        ]
        if absent:
            raise _no_column(self.path, absent, list(self.columns), self.records, mapped.source)


def rows_of_file(root: Path, path: str, mapped: Mapped, seen: Seen) -> Iterator[Row | Unreadable]:
    """Yield a file's rows and what could not become one, in the order of the file."""
    columns = tuple(mapped.columns.values())
    seen.columns.update(dict.fromkeys(column_names(root / path) or ()))
    yield from rows_of_records(read_records(root / path, columns), path, mapped, seen)


def rows_of_records(
    records: Iterable[Record | Problem], path: str, mapped: Mapped, seen: Seen
) -> Iterator[Row | Unreadable]:
    """Yield rows of a file's records and what could not become one, in their order.

    Args:
        records: Of one file.
        path: The file, relative to its source.
        mapped: How records become rows.
        seen: Where to note which columns there were.
    """
    path = printable(path)
    seen.path = seen.path or path
    ids = RowIds(mapped.source, path)
    columns = tuple(mapped.columns.values())
    for item in records:
        if isinstance(item, Problem):
            yield Unreadable(mapped.source, path, item.line, item.problem, excerpt(item.excerpt))
            continue
        seen.records += 1
        for column in columns:
            if column not in item.values:
                seen.missing[column] += 1
        if len(seen.columns) < SHOWN_COLUMNS:
            seen.columns.update(dict.fromkeys(excerpt(str(name)) for name in item.values))
        yield _row(item.line, item.values, path, mapped, ids)


def _row(
    line: int, values: Mapping[str, Any], path: str, mapped: Mapped, ids: RowIds
) -> Row | Unreadable:
    """One record as a row."""
    problems = []
    for role in TEXTS:
        column, is_required = mapped.columns[role], role in mapped.required
        if is_required and column not in values:
            problems.append(f"no column {column!r}")
        elif problem := text_problem(column, values.get(column), is_required):
            problems.append(problem)
    if problems:
        return Unreadable(mapped.source, path, line, "; ".join(problems), excerpt(dict(values)))
    instruction, input_text, output = (values.get(mapped.columns[role]) or "" for role in TEXTS)
    row_id = ids.next_id(instruction, input_text, output)
    project = _label(values, mapped.columns.get("project"))
    told = _label(values, mapped.columns.get("licence"))
    evidence = f"column {mapped.columns['licence']}" if told else "stated in the settings"
    licence = told or mapped.licence
    return Row(
        row_id=row_id,
        instruction=instruction,
        input=input_text,
        output=output,
        kind="instruction",
        source=mapped.source,
        project=project or row_id,
        path=path,
        line=line,
        version="",
        licence=licence,
        licence_evidence=evidence if licence else "",
    )


def _label(values: Mapping[str, Any], column: str | None) -> str:
    """A short value of a record as text; "" where there is none."""
    value = values.get(column) if column else None
    text = "" if value is None else str(value).replace("\0", "")
    return text.encode("utf-8", "replace").decode().strip()


def _no_column(
    path: str, absent: Sequence[tuple[str, str]], found: Sequence[str], records: int, source: str
) -> PipelineError:
    hints = []
    for role, column in absent:
        near = difflib.get_close_matches(column, found, n=1, cutoff=0.5)
        hints.append(f"{role}: {near[0] if near else '<its name>'}")
    names = ", ".join(repr(column) for _, column in absent)
    shown = ", ".join(found[:SHOWN_COLUMNS]) + (", ..." if len(found) > SHOWN_COLUMNS else "")
    return PipelineError(
        f"source {source} ({path} first): none of its {records:,} rows has column {names}; "
        f"its columns are {shown}",
        f"Name the columns in the source's settings, such as `columns: {{{', '.join(hints)}}}`.",
    )
