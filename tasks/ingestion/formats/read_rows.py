"""Records of a file -> rows, and ledger entries for records that could not become rows."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.files.protocol import Record, UnreadableRecord
from tasks.ingestion.formats.files.registry import file_format, read_records
from tasks.ingestion.formats.rows.protocol import ColumnMapping, RowFormat
from tasks.ingestion.formats.rows.registry import ROW_FORMATS
from tasks.ingestion.licenses import license_of_value
from tasks.ingestion.rows import Row, Unreadable, excerpt, printable, text_id

SHOWN_COLUMNS = 20


class SourceReader:
    """Reads the files of one source, and counts its columns to report one that all records lack."""

    def __init__(
        self, mapping: ColumnMapping, row_format: RowFormat = ROW_FORMATS["instruction"]
    ) -> None:
        self.mapping, self._format = mapping, row_format
        self._records = 0
        self._first_path = ""
        self._columns: dict[str, None] = {}  # an ordered set
        self._missing: Counter[str] = Counter()

    def rows_of_file(self, root: Path, path: str) -> Iterator[Row | Unreadable]:
        """Yield a file's rows and what could not become one, in the order of the file."""
        columns = tuple(self.mapping.columns.values())
        try:
            names = file_format(root / path).column_names(root / path)
        except OSError:
            names = None  # reported when the records are read
        self._columns.update(dict.fromkeys(names or ()))
        yield from self.rows_of_records(read_records(root / path, columns), path)

    def rows_of_records(
        self, records: Iterable[Record | UnreadableRecord], path: str
    ) -> Iterator[Row | Unreadable]:
        """Yield the rows of a file's records and what could not become one, in their order.

        Args:
            records: Of one file.
            path: The file, relative to its source.
        """
        path, source = printable(path), self.mapping.source
        self._first_path = self._first_path or path
        for item in records:
            if isinstance(item, UnreadableRecord):
                yield Unreadable(source, path, item.line, item.problem, excerpt(item.excerpt))
                continue
            self._count_columns(item.values)
            yield self._row(item, path)

    def _count_columns(self, values: Mapping[str, Any]) -> None:
        self._records += 1
        for column in self.mapping.columns.values():
            if column not in values:
                self._missing[column] += 1
        if len(self._columns) < SHOWN_COLUMNS:
            self._columns.update(dict.fromkeys(excerpt(str(name)) for name in values))

    def _row(self, record: Record, path: str) -> Row | Unreadable:
        mapping, values = self.mapping, record.values
        texts = self._format.texts(values, mapping)
        if isinstance(texts, str):
            return Unreadable(mapping.source, path, record.line, texts, excerpt(dict(values)))
        row_id = text_id(*texts)
        column = mapping.columns.get("licence")
        licence = license_of_value(values.get(column)) if column else ""
        evidence = f"column {mapping.columns['licence']}" if licence else "stated in the settings"
        licence = licence or mapping.licence
        return Row(
            row_id,
            *texts,
            kind=self._format.name,
            source=mapping.source,
            project=_label(values, mapping.columns.get("project")) or row_id,
            path=path,
            line=record.line,
            version="",
            licence=licence,
            licence_evidence=evidence if licence else "",
        )

    def check_columns(self) -> None:
        """Check the columns once all files are read.

        Raises:
            PipelineError: Not one of the source's records has a column that is required.
        """
        absent = [
            (role, column)
            for role, column in self._format.required_columns(self.mapping)
            if self._records and self._missing[column] == self._records
        ]
        if absent:
            raise self._no_column(absent, list(self._columns))

    def _no_column(self, absent: Sequence[tuple[str, str]], found: Sequence[str]) -> PipelineError:
        hints = []
        for role, column in absent:
            near = difflib.get_close_matches(column, found, n=1, cutoff=0.5)
            hints.append(f"{role}: {near[0] if near else '<its name>'}")
        names = ", ".join(repr(column) for _, column in absent)
        shown = ", ".join(found[:SHOWN_COLUMNS]) + (", ..." if len(found) > SHOWN_COLUMNS else "")
        example = f"columns: {{{', '.join(hints)}}}"
        return PipelineError(
            f"source {self.mapping.source} ({self._first_path} first): none of its "
            f"{self._records:,} rows has column {names}; its columns are {shown}",
            f"Name the columns in the source's settings, such as `{example}`.",
        )


def _label(values: Mapping[str, Any], column: str | None) -> str:
    """A short value of a record as text; "" where there is none."""
    value = values.get(column) if column else None
    text = "" if value is None else str(value).replace("\0", "")
    return text.encode("utf-8", "replace").decode().strip()
