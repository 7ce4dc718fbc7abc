"""Records of a file -> rows, and ledger entries for records that could not become rows."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.system.escape_text import printable
from tasks.ingestion.formats.column_errors import in_yaml, no_column
from tasks.ingestion.formats.columns import MISSING, Column, Values, column
from tasks.ingestion.formats.detect import bind, other_format, rendered_chat, used_names
from tasks.ingestion.formats.files.protocol import Open, Record, UnreadableRecord
from tasks.ingestion.formats.files.registry import column_names, read_records
from tasks.ingestion.formats.instances import rows_inside, spread
from tasks.ingestion.formats.rows.protocol import BoundFormat, ColumnMapping, RowProblemError
from tasks.ingestion.licenses import license_of_value
from tasks.ingestion.rows import (
    ADDRESS,
    Row,
    Unfit,
    Unreadable,
    excerpt,
    text_id,
)

FIRST_RECORDS = 64  # a file's format is detected from them
LEFT_OUT = "other answers, not used"
MAX_NAMES = 1000  # columns that are remembered; every record may have other keys
# beginnings of the names of counts
READ_AS, UNUSED, RENDERED = "read as ", "column not used: ", "rows that look like chats in "
# unused columns that change what a model should answer, and the role that would use them
MEANINGFUL = {
    "context": "input",
    "input": "input",
    "system": "system",
    "system_prompt": "system",
    "history": "history",
    "tools": "tools",
    "functions": "tools",
    "rejected": "rejected",
    **dict.fromkeys(("choices", "options", "schema", "passage", "suffix"), "input"),
}


class SourceReader:
    """Reads the files of one source, and remembers its columns to report those that no record has
    and those that are not used."""

    def __init__(self, mapping: ColumnMapping) -> None:
        self.mapping = mapping
        self._records = 0
        self._first_path = ""
        self._has_choice = False
        self._sample: list[Values] = []
        self._used: set[str] = set()
        self._wanted: dict[tuple[str, str], Column] = {}  # not seen in any record so far
        self._seen: set[tuple[str, str]] = set()
        self.counts: Counter[str] = Counter()
        self._labels = [
            column(mapping.columns[role]) if role in mapping.columns else None
            for role in ("project", "licence")
        ]

    def rows_of_file(self, root: Path, path: str) -> Iterator[Row | Unreadable]:
        """Yield a file's rows and what could not become one, in the order of the file."""
        names = column_names(root / path)
        yield from self.rows_of_records(
            lambda columns: read_records(root / path, columns), path, names
        )

    def rows_of_records(
        self, records: Open, path: str, names: Collection[str] = ()
    ) -> Iterator[Row | Unreadable]:
        """Yield the rows of a file's records and what could not become one, in their order.

        Args:
            records: Opens a file: columns (None: all) -> its records.
            path: The file, relative to its source.
            names: Its columns, where they are known without reading records.

        Raises:
            PipelineError: See `bind`.
        """
        path, source = printable(path), self.mapping.source
        records, first = opened(records, self.mapping)
        bound = bind(self.mapping, first, path)
        rest = [values for values in first if not _has_any(bound, values)]
        others = bind(self.mapping, rest, path) if rest else bound
        if not self._first_path:
            self._first_path, self._sample = path, first or [dict.fromkeys(names)]
        self._has_choice |= bool(bound.form.choice)
        self._want(bound)
        used = used_names(bound.columns) | used_names(others.columns)
        known = {name for values in first for name in values}.union(names)
        before, by_others = self._records, 0
        for item in records(used):
            if isinstance(item, UnreadableRecord):
                yield Unreadable(source, path, item.line, item.problem, excerpt(item.excerpt))
                continue
            line, values = item
            self._records += 1
            if self._wanted:
                self._look_for_columns(values)
            if not values.keys() <= known and len(known) < MAX_NAMES:
                known.update(values)
            is_other = others is not bound and not _has_any(bound, values)
            by_others += is_other
            yield self._row(others if is_other else bound, line, values, path)
        self._count(bound, known - used, self._records - before - by_others)
        if by_others:
            self._count(others, (), by_others)
        if note := rendered_chat(bound, first):
            self.counts[RENDERED + note] += self._records - before

    def _row(self, bound: BoundFormat, line: int, values: Values, path: str) -> Row | Unreadable:
        mapping = self.mapping
        try:
            kind, instruction, input_text, output, conversation = bound.form.texts(bound, values)
            if left_out := bound.form.left_out:
                self.counts[LEFT_OUT] += left_out(bound, values)
        except RowProblemError as error:
            return Unreadable(mapping.source, path, line, str(error), excerpt(dict(values)))
        texts = (instruction, input_text, output)
        row_id = text_id(*texts, conversation) if conversation else text_id(*texts)
        project, licence_column = self._labels
        licence, evidence = mapping.licence, "stated in the settings"
        if licence_column and (stated := license_of_value(_known(licence_column.get(values)))):
            licence, evidence = stated, f"column {licence_column.spec}"
        return Row(
            row_id,
            instruction,
            input_text,
            output,
            kind,
            mapping.source,
            (project and _label(values, project)) or row_id,
            path,
            line,
            "",
            licence,
            evidence if licence else "",
            conversation,
        )

    def _want(self, bound: BoundFormat) -> None:
        """Look for the columns that a format needs or the settings name: of the settings, because
        a column that is optional is then named on purpose."""
        self._used |= used_names(bound.columns)
        needed = bound.form.needs(self.mapping)
        for role, one in bound.columns.items():
            key = (role, one.spec)
            if (role in needed or role in self.mapping.columns) and key not in self._seen:
                self._wanted[key] = one

    def _look_for_columns(self, values: Values) -> None:
        found = [key for key, one in self._wanted.items() if one.get(values) is not MISSING]
        self._seen.update(found)
        for key in found:
            del self._wanted[key]

    def _count(self, bound: BoundFormat, unused: Collection[str], rows: int) -> None:
        columns = {r: c.spec for r, c in bound.columns.items() if r not in ("project", "licence")}
        usual = {role: names[0] for role, names in bound.form.roles.items()}
        renamed = [f"{r}: {in_yaml(spec)}" for r, spec in columns.items() if usual[r] != spec]
        label = f"{bound.form.name} ({', '.join(renamed)})" if renamed else bound.form.name
        self.counts[READ_AS + label] += rows
        for name in sorted(unused)[:MAX_NAMES]:
            self.counts[f"{UNUSED}{excerpt(str(name))}"] += rows

    def check_columns(self) -> None:
        """Check the columns once all files are read.

        Raises:
            PipelineError: Not one of the source's records has a column that is required, or
                `take` is set and no file has preference pairs.
        """
        where = f"source {self.mapping.source} ({self._first_path} first)"
        if self._records and self._wanted:
            raise no_column(
                where,
                self._records,
                list(self._wanted),
                self.mapping.columns,
                self._used - {spec for _, spec in self._wanted},
                self._sample,
                other_format(self.mapping, self._sample),
            )
        if self._records and self.mapping.take and not self._has_choice:
            raise PipelineError(
                f"{where}: `take: {self.mapping.take}` is set, and no file has preference pairs "
                "(columns chosen and rejected) or labels",
                "Remove `take` from the source's settings.",
            )
        for name in unused_with_meaning(self.counts):
            role = MEANINGFUL[name.lower()]
            say(
                f"source {self.mapping.source}: column {name!r} is not used, but it may be "
                f"part of the question (role {role})"
            )


def _has_any(bound: BoundFormat, values: Values) -> bool:
    """Whether a record has one of the columns that its format needs."""
    needs = bound.form.needs(bound.mapping)
    return not needs or any(bound.value(role, values) is not None for role in needs)


def opened(records: Open, mapping: ColumnMapping) -> tuple[Open, list[Values]]:
    """A file, with instances and solutions as records of their own, and its first records."""
    first = _first(records)
    may_guess = not mapping.format and mapping.columns.keys() <= {"project", "licence"}
    if rows := rows_inside(first, may_guess):
        records = spread(records, rows)
        first = _first(records)
    return records, first


def _first(records: Open) -> list[Values]:
    return [r.values for r in islice(records(None), FIRST_RECORDS) if isinstance(r, Record)]


def unused_with_meaning(counts: Mapping[str, int]) -> list[str]:
    """Columns that are not used, and that change what a model should answer."""
    names = [name.removeprefix(UNUSED) for name in counts if name.startswith(UNUSED)]
    return [name for name in names if name.lower() in MEANINGFUL]


def _known(value: Any) -> Any:
    """A value of a record; None where it is missing or can't be represented."""
    return None if value is MISSING or isinstance(value, Unfit) else value


def _label(values: Values, label: Column) -> str:
    """A short value of a record as text; "" where there is none."""
    value = _known(label.get(values))
    text = "" if value is None else ADDRESS.sub("", str(value)).replace("\0", "")
    return text.encode("utf-8", "replace").decode().strip()
