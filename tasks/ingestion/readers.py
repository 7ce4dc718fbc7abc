"""JSONL, JSON, CSV and Parquet files -> records, one at a time: a bad one is told by its line and
the next is read.

A `Record` is what stands in the file, unchecked; `Problem` is what can't be one. Which of its
values become texts of a row, and whether they can, is decided in `tasks.ingestion.files`.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

MAX_FIELD_CHARACTERS = 16 * 1024 * 1024
READ_CHARACTERS = 1024 * 1024
PARQUET_ROWS = 1024
BLANK = re.compile(r"\s*")
BLANK_OR_COMMA = re.compile(r"[\s,]*")
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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
        if start.startswith(UTF16_MARKS):
            yield Problem(0, "the file is UTF-16, wanted UTF-8", "")
            return
        reader = READERS[path.suffix.lower()]
        if reader is read_json and start.lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:1] == b"{":
            reader = read_jsonl
        yield from reader(path, columns)
    except OSError as error:
        yield Problem(0, f"the file can't be read: {error.strerror or error}", "")


def read_jsonl(path: Path, columns: Sequence[str]) -> Items:
    """One JSON object a line; empty lines are passed over."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
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


def read_json(path: Path, columns: Sequence[str]) -> Items:
    """A JSON array of objects, read piece by piece; what follows a malformed item can't be told
    apart any more."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        text = _Window(file)
        text.skip(BLANK)
        if text.rest(1) != "[":
            yield Problem(text.line, "the file holds no JSON array of objects", text.rest())
            return
        text.advance(text.at + 1)
        while True:
            text.skip(BLANK_OR_COMMA)
            if text.rest(1) == "]":
                return
            try:
                values, end = text.decode()
            except (ValueError, RecursionError) as error:
                message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                problem = f"malformed JSON: {message}; the rest of the file is left out"
                yield Problem(text.line, problem, text.rest())
                return
            yield _record(text.line, values)
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
            except (ValueError, RecursionError):
                if not self._read_on():
                    raise

    def _read_on(self) -> bool:
        """Drop what lies behind the place, double the rest; False at the end of the file."""
        rest = self._text[self.at :]
        more = self._file.read(max(READ_CHARACTERS, len(rest)))
        if more:
            self._text, self.at = rest + more, 0
        return bool(more)


def read_csv(path: Path, columns: Sequence[str]) -> Items:
    """Comma-separated (tab-separated for .tsv) values under a header."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                fields = _next_fields(reader)
            except csv.Error as error:
                yield Problem(line, f"malformed CSV: {error}", "")
                continue
            if fields is None:
                return
            if not fields:
                continue
            if header is None:
                header = fields
            elif len(fields) != len(header):
                yield Problem(
                    line,
                    f"{len(fields)} fields, the header has {len(header)}",
                    delimiter.join(fields),
                )
            else:
                yield Record(line, dict(zip(header, fields, strict=True)))


def _next_fields(reader: Any) -> list[str] | None:
    """The next row of a CSV reader with a larger limit for a field, None at the end."""
    limit = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def read_parquet(path: Path, columns: Sequence[str]) -> Items:
    """Rows of a Parquet file, a batch at a time."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        yield Problem(0, f"not a Parquet file: {str(error).splitlines()[0]}", "")
        return
    with file:
        names = file.schema_arrow.names
        number = 0
        wanted = [name for name in names if name in columns] or names[:1]
        try:
            for batch in file.iter_batches(PARQUET_ROWS, columns=wanted):
                for values in batch.to_pylist():
                    number += 1
                    yield Record(number, values)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            yield Problem(
                number + 1,
                f"damaged Parquet: {str(error).splitlines()[0]}; the rest is left out",
                "",
            )


def column_names(path: Path) -> list[str] | None:
    """Names of a Parquet file's columns; None where only the records tell them."""
    if path.suffix.lower() != ".parquet":
        return None
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return None


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
