"""JSONL, JSON, CSV and Parquet files -> records, one at a time: a bad one is told by its line and
the next is read.

A `Record` is what stands in the file, unchecked; `Problem` is what can't be one. Which of its
values become texts of a row, and whether they can, is decided in `tasks.ingestion.formats.records`.
"""

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, AnyStr, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

MAX_RECORD = 16 * 1024 * 1024  # characters or bytes of one record; more is no row, only memory
READ_CHARACTERS = 1024 * 1024
MARGIN = 64  # characters; more than any token of JSON but text and numbers
PARQUET_ROWS = 1024
BROKEN = (pa.ArrowException, ValueError)  # what Arrow raises at bytes that are not what they claim
BLANK_OR_COMMA = re.compile(r"[\s,]*")
NEXT_OBJECT = re.compile(r"(?:\}\s*,?\s*|\n[ \t]*)(?=\{)")
TOO_LONG = f"longer than {MAX_RECORD:,} bytes"
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32 text"),
    (codecs.BOM_UTF32_BE, "UTF-32 text"),
    (codecs.BOM_UTF16_LE, "UTF-16 text"),
    (codecs.BOM_UTF16_BE, "UTF-16 text"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
)


class Record(NamedTuple):
    """One record and its 1-based line (Parquet, JSON array in one line: its number)."""

    line: int
    values: Mapping[str, Any]


class Problem(NamedTuple):
    """What could not be read; line 0 is the whole file."""

    line: int
    problem: str
    excerpt: object


Items = Iterator[Record | Problem]


def read_records(path: Path, columns: Sequence[str]) -> Items:
    """Yield the records of a file, by the ending of its name.

    Args:
        path: File with one of the suffixes of `listing.DATA_SUFFIXES`.
        columns: Names that will be asked for; Parquet reads no others.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
        reader = READERS[path.suffix.lower()]
        found = [name for mark, name in MARKS if start.startswith(mark)]
        if found and reader is not read_parquet:
            yield Problem(0, f"the file is {found[0]}, wanted UTF-8 text", "")
            return
        if reader is read_json and _is_jsonl(path):
            reader = read_jsonl
        yield from reader(path, columns)
    except OSError as error:
        yield Problem(0, f"the file can't be read: {error.strerror or _first_line(error)}", "")


def read_jsonl(path: Path, columns: Sequence[str]) -> Items:
    """One JSON object a line; empty lines are passed over."""
    with path.open("rb") as file:
        for number, raw in _lines(file, (b"\n",)):
            if raw is None:
                yield Problem(number, TOO_LONG, "")
                continue
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode())
            except UnicodeDecodeError as error:
                yield Problem(number, f"byte {error.object[error.start]:#04x} is not UTF-8", raw)
            except (ValueError, RecursionError) as error:
                yield Problem(number, f"malformed JSON: {error}", raw)
            else:
                yield _record(number, values)


def _lines(file: IO[AnyStr], newlines: tuple[AnyStr, ...]) -> Iterator[tuple[int, AnyStr | None]]:
    """Lines with their numbers; None for one that is too long, of which no more than a piece is
    ever in memory."""
    number = 0
    while line := file.readline(MAX_RECORD):
        number += 1
        if len(line) < MAX_RECORD or line.endswith(newlines):
            yield number, line
            continue
        while (rest := file.readline(MAX_RECORD)) and not rest.endswith(newlines):
            pass
        yield number, None


def _is_jsonl(path: Path) -> bool:
    """Whether the first line that isn't empty is an object of its own."""
    with path.open("rb") as file:
        for number, raw in _lines(file, (b"\n",)):
            line = (raw or b"").removeprefix(codecs.BOM_UTF8) if number == 1 else raw or b""
            if not line.strip():
                continue
            try:
                return isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                return False
    return False


def read_json(path: Path, columns: Sequence[str]) -> Items:
    """A JSON array of objects, or objects one after another, read piece by piece; after a malformed
    one, reading goes on where the next seems to begin."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        text = _Window(file)
        text.skip(BLANK_OR_COMMA)
        if text.rest(1) not in ("[", "{"):
            yield Problem(text.line, "the file holds no JSON array of objects", text.rest())
            return
        depth = int(text.rest(1) == "[")
        text.advance(text.at + depth)
        while True:
            text.skip(BLANK_OR_COMMA)
            if text.rest(1) == "]":
                depth -= 1
                text.advance(text.at + 1)
                text.skip(BLANK_OR_COMMA)
                if depth or not text.rest(1):
                    continue
                yield Problem(text.line, "text behind the end of the JSON array", text.rest())
            if not text.rest(1) and depth <= 0:
                return
            try:
                values, end = text.decode()
            except (ValueError, RecursionError) as error:
                message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                line, shown = text.line, text.rest()
                goes_on = text.resume()
                rest = "" if goes_on else "; the rest of the file is left out"
                yield Problem(line, f"malformed JSON: {message}{rest}", shown)
                if not goes_on:
                    return
                continue
            yield _record(text.line, values)
            if isinstance(values, list) and any(isinstance(value, dict) for value in values):
                depth += 1
                end = (
                    text.at + 1
                )  # a stray bracket takes in good objects: they are read by themselves
            text.advance(end)


class _Window:
    """The part of a text file that is in memory, and a place in it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._decoder = json.JSONDecoder()
        self.at = 0
        self.line = 1

    def rest(self, characters: int = 200) -> str:
        """The next characters."""
        return self._text[self.at : self.at + characters]

    def advance(self, to: int) -> None:
        """Move the place forward, counting lines."""
        self.line += self._text.count("\n", self.at, to)
        self.at = to

    def skip(self, pattern: re.Pattern[str]) -> None:
        """Move over what matches, reading on where the text in memory ends."""
        while True:
            self.advance(match.end() if (match := pattern.match(self._text, self.at)) else self.at)
            if self.at < len(self._text) or not self._read_on():
                return

    def decode(self) -> tuple[Any, int]:
        """The JSON value at the place and where it ends; reads on until it is whole."""
        while True:
            try:
                values, end = self._decoder.raw_decode(self._text, self.at)
                if end < len(self._text) or not self._read_on():  # a number at the end might go on
                    return values, end
            except json.JSONDecodeError as error:
                if self._is_malformed(error):
                    raise
                if len(self._text) - self.at > MAX_RECORD:
                    raise ValueError(f"an item {TOO_LONG}") from error
                if not self._read_on():
                    raise

    def resume(self) -> bool:
        """Move to where the next object seems to begin; False where there is none."""
        self.advance(min(self.at + 1, len(self._text)))
        while True:
            if match := NEXT_OBJECT.search(self._text, max(0, self.at - 1)):
                self.advance(match.end())
                return True
            self.advance(max(self.at, len(self._text) - MARGIN))
            if not self._read_on():
                return False

    def _is_malformed(self, error: json.JSONDecodeError) -> bool:
        """Whether an error is one whatever follows the text in memory."""
        return error.pos + MARGIN < len(self._text) and not error.msg.startswith("Unterminated")

    def _read_on(self) -> bool:
        """Drop what lies behind the place, double the rest; False at the end of the file."""
        rest = self._text[self.at :]
        more = self._file.read(max(READ_CHARACTERS, len(rest)))
        if more:
            self._text, self.at = rest + more, 0
        return bool(more)


def read_csv(path: Path, columns: Sequence[str]) -> Items:
    """Comma-separated (tab-separated for .tsv) values under a header.

    A stray quote takes in the lines up to the next one. So where a record is malformed, its first
    line alone is given up, and the lines behind it are read again.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _CsvLines(file)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            try:
                fields = _next_fields(reader)
            except (csv.Error, _LongLineError) as error:
                line = lines.taken[0][0] if lines.taken else 0
                problem = str(error) if len(lines.taken) < 2 else f"{error} (a stray quote?)"
                shown = (lines.taken[0][1] or "") if lines.taken else ""
                if header is None:
                    yield Problem(line, f"malformed CSV header: {problem}", shown)
                    return
                yield Problem(line, f"malformed CSV: {problem}", shown)
                lines.give_up_first()
                continue
            line = lines.taken[0][0] if lines.taken else 0
            lines.taken.clear()
            if fields is None:
                return
            if not fields:
                continue
            if header is None:
                header = fields
                if double := _double(header, columns):
                    yield Problem(line, double, delimiter.join(header))
                    return
            elif len(fields) != len(header):
                problem = f"{len(fields)} fields, the header has {len(header)}"
                yield Problem(line, problem, delimiter.join(fields))
            else:
                yield Record(line, dict(zip(header, fields, strict=True)))


class _LongLineError(Exception):
    """A line that is too long to be a record."""


class _CsvLines:
    """Lines of a file for a CSV reader, some of which may be read again.

    Attributes:
        taken: (number, line) of those that the present record was made of.
    """

    def __init__(self, file: TextIO) -> None:
        self._lines = _lines(file, ("\n", "\r"))
        self._again: deque[tuple[int, str | None]] = deque()
        self.taken: list[tuple[int, str | None]] = []

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        self.taken.append(self._again.popleft() if self._again else next(self._lines))
        line = self.taken[-1][1]
        if line is None:
            raise _LongLineError(f"a line {TOO_LONG}")
        return line

    def give_up_first(self) -> None:
        """Read all lines of the present record but the first again."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.taken.clear()


def _next_fields(reader: Any) -> list[str] | None:
    """The next row of a CSV reader with a larger limit for a field, None at the end."""
    limit = csv.field_size_limit(MAX_RECORD)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def read_parquet(path: Path, columns: Sequence[str]) -> Items:
    """Rows of a Parquet file, a batch at a time; of a damaged row group, what was whole."""
    try:
        file = pq.ParquetFile(path)
    except BROKEN as error:
        yield Problem(0, f"not a Parquet file: {_first_line(error)}", "")
        return
    with file:
        names = file.schema_arrow.names
        if double := _double(names, columns):
            yield Problem(0, double, "")
            return
        wanted = [name for name in names if name in columns]
        before = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            number = before
            try:
                for batch in file.iter_batches(PARQUET_ROWS, [group], wanted):
                    yield from records_of_table(batch, number)
                    number += batch.num_rows
            except (*BROKEN, OSError) as error:
                lost = f"rows {number + 1} to {before + rows} are left out"
                yield Problem(number + 1, f"damaged Parquet: {_first_line(error)}; {lost}", "")
            before += rows


def _double(names: Sequence[str], columns: Sequence[str]) -> str:
    """The problem of several columns with a name that is asked for; "" if there is none."""
    double = next((name for name in columns if names.count(name) > 1), None)
    return f"{names.count(double)} columns are called {double!r}" if double else ""


def records_of_table(table: Any, before: int) -> Iterator[Record]:
    """Rows of an Arrow table or batch; `before` rows of the file stand before it."""
    names = table.schema.names
    values = [_values(table.column(i)) for i in range(len(names))]
    for row in range(table.num_rows):
        yield Record(before + row + 1, {n: v[row] for n, v in zip(names, values, strict=True)})


def _values(column: Any) -> list[Any]:
    """Values of an Arrow column. Text that is not UTF-8 comes with surrogates, a value that Python
    can't hold as `Unfit`: both are told as what they are when they are looked at as text."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        return [v if v is None else v.decode("utf-8", "surrogateescape") for v in raw]
    except (*BROKEN, OverflowError):
        return [Unfit()] * len(column)


class Unfit:
    """Stands for a value that Python can't hold, such as a date in the year 40000."""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def column_names(path: Path) -> list[str] | None:
    """Names of a Parquet file's columns; None where only the records tell them."""
    if path.suffix.lower() != ".parquet":
        return None
    try:
        return list(pq.read_schema(path).names)
    except (*BROKEN, OSError):
        return None  # told when its rows are read


def _record(line: int, values: Any) -> Record | Problem:
    if isinstance(values, dict):
        return Record(line, values)
    return Problem(line, f"holds a JSON {type(values).__name__}, wanted an object", values)


READERS: Mapping[str, Callable[[Path, Sequence[str]], Items]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
