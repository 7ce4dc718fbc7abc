"""CSV: values under a header, separated by commas, semicolons, tabs or bars, which is detected from
the first rows, and quoted as in RFC 4180. Blanks around the names of columns are left out.

A stray quote swallows the lines up to the next quote. Therefore, where a record is malformed, only
its first line is dropped, and the lines after it are read again.
"""

import csv
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from tasks.ingestion.formats.files import text_lines
from tasks.ingestion.formats.files.compression import open_text, plain_name
from tasks.ingestion.formats.files.protocol import (
    FileFormat,
    Record,
    Records,
    UnreadableRecord,
    duplicate_column,
)

DELIMITERS = (",", ";", "\t", "|")
SEPARATOR = re.compile(r"sep=([,;\t|])")  # a line before the header, as spreadsheets write it
COMMENT = "# "  # begins a line before the header
SAMPLE_CHARACTERS, SAMPLE_ROWS = 1 << 16, 20


class _LongLineError(Exception):
    """A line that is too long to be a record."""


def _read(path: Path, columns: Collection[str] | None) -> Records:
    delimiter, before_header = _layout(path)
    with open_text(path) as file:
        lines = _RereadableLines(file)
        lines.skip(before_header)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            try:
                fields = _next_fields(reader)
            except (csv.Error, _LongLineError) as error:
                yield _malformed(error, lines.taken, is_header=header is None)
                if header is None:
                    return
                lines.drop_first()
                continue
            line = lines.taken[0][0] if lines.taken else 0
            lines.taken.clear()
            if fields is None:
                return
            if not fields:
                continue
            if header is None:
                header = [name.strip() for name in fields]
                if problem := duplicate_column(header, columns):
                    yield UnreadableRecord(line, problem, delimiter.join(header))
                    return
            elif len(fields) != len(header):
                problem = f"{len(fields)} fields, the header has {len(header)}"
                yield UnreadableRecord(line, problem, delimiter.join(fields))
            else:
                yield Record(line, dict(zip(header, fields, strict=True)))


def _layout(path: Path) -> tuple[str, int]:
    """The delimiter of a file, and the number of lines before its header: comments, and a line
    that names the delimiter. A comment with as many fields as the next line is the header."""
    with open_text(path) as file:
        lines = file.read(SAMPLE_CHARACTERS).splitlines(keepends=True)
    before = next((n for n, line in enumerate(lines) if not line.startswith(COMMENT)), 0)
    if before < len(lines) and (named := SEPARATOR.fullmatch(lines[before].strip("\r\n"))):
        return named[1], before + 1
    delimiter = _delimiter(path, lines[before:])
    if before:
        pair = csv.reader(lines[before - 1 : before + 1], delimiter=delimiter)
        counts = [len(fields) for fields in pair]
        before -= len(counts) == 2 and counts[0] == counts[1] > 1
    return delimiter, before


def _delimiter(path: Path, lines: Sequence[str]) -> str:
    """The character that splits the header and most of the first rows into the same number of
    fields; the one of the file's name where several do."""
    usual = "\t" if plain_name(path.name).endswith(".tsv") else ","
    best = (0.0, 0)
    chosen = usual
    for delimiter in (usual, *(one for one in DELIMITERS if one != usual)):
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row][:SAMPLE_ROWS]
        except csv.Error:
            continue
        fields = len(rows[0]) if rows else 0
        alike = sum(len(row) == fields for row in rows) / len(rows) if fields > 1 else 0.0
        if (alike, fields) > best:
            best, chosen = (alike, fields), delimiter
    return chosen


def _malformed(
    error: Exception, taken: Sequence[tuple[int, str | None]], is_header: bool
) -> UnreadableRecord:
    line, text = taken[0] if taken else (0, "")
    what = "malformed CSV header" if is_header else "malformed CSV"
    hint = "" if len(taken) < 2 else " (a stray quote?)"
    return UnreadableRecord(line, f"{what}: {error}{hint}", text or "")


class _RereadableLines:
    """Lines of a file for a CSV reader, some of which may be read again.

    Attributes:
        taken: (number, line) of the lines of the current record.
    """

    def __init__(self, file: TextIO) -> None:
        self._lines = text_lines.numbered_lines(file, ("\n", "\r"))
        self._again: deque[tuple[int, str | None]] = deque()
        self.taken: list[tuple[int, str | None]] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.taken.append(self._again.popleft() if self._again else next(self._lines))
        line = self.taken[-1][1]
        if line is None:
            raise _LongLineError(f"a line {text_lines.too_long()}")
        return line

    def skip(self, count: int) -> None:
        """Read some lines that belong to no record."""
        for _ in range(count):
            next(self._lines, None)

    def drop_first(self) -> None:
        """Read all lines of the current record but the first one again."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.taken.clear()


def _next_fields(reader: Any) -> list[str] | None:
    """The next row of a CSV reader, None at the end.

    The limit of a field (128 KiB by default) is global to the process, so it is raised for this
    call only.
    """
    limit = csv.field_size_limit(text_lines.MAX_RECORD)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


CSV = FileFormat(name="csv", extensions=(".csv", ".tsv"), read=_read)
