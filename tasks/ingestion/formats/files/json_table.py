"""JSON of a whole table in one object: columns as lists, columns by row number (what pandas writes
by default), names of columns and lists of values, or rows by their names: {"7": {"question": ...,
"answer": ...}}.

Such a file can only be decoded as a whole, so its size is limited.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.ingestion.formats.files.compression import open_text
from tasks.ingestion.formats.files.json_layout import DECODER, HEAD_CHARACTERS
from tasks.ingestion.formats.files.protocol import FileFormat, Record, Records, is_message

MAX_CHARACTERS = 256 << 20
LEAST_ROWS = 2  # fewer could be one record
LEAST_NAMED_ROWS = 3  # a record may have two columns with equal parts
# the first value of the object holds others, and no rows: {"data": [{...}]} is not a table
BEGINNING = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*(?:\[\s*(?!\{)|\{)')


def _is_table(path: Path) -> bool:
    with open_text(path) as file:
        head = file.read(HEAD_CHARACTERS)
        if not BEGINNING.match(head):
            return False
        text = head
        try:
            _, end = DECODER.raw_decode(head.lstrip())
            if head.lstrip()[end:].strip():
                return False  # one object of several
        except (ValueError, RecursionError):
            text += file.read(MAX_CHARACTERS)
    return _rows(text) is not None


def _rows(text: str) -> list[dict[str, Any]] | None:
    """The rows of a table; None if it is none."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = list(table.values()) if isinstance(table, dict) else []
    if not isinstance(table, dict) or len(values) < LEAST_ROWS:
        return None
    if (given := table.get("columns")) and isinstance(lists := table.get("data"), list):
        return _of_split(given, lists)
    if all(isinstance(value, list) for value in values):
        return _of_lists(table, values)
    if all(isinstance(value, dict) for value in values):
        return _of_objects(table, values)
    return None


def _of_lists(
    table: Mapping[str, Any], columns: Sequence[list[Any]]
) -> list[dict[str, Any]] | None:
    """Rows of columns that are lists; None for the chats of one record."""
    is_even = len({len(column) for column in columns}) == 1 and len(columns[0]) >= LEAST_ROWS
    parts = (column[0] for column in columns) if is_even else ()
    if not is_even or any(map(is_message, parts)):
        return None
    return [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]


def _of_split(names: Any, lists: Sequence[Any]) -> list[dict[str, Any]] | None:
    """Rows of a list of names and lists of values in their order (`orient="split"` in pandas)."""
    is_table = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_table or not all(isinstance(r, list) and len(r) == len(names) for r in lists):
        return None
    return [dict(zip(names, row, strict=True)) for row in lists]


def _of_objects(
    table: Mapping[str, Any], values: Sequence[dict[str, Any]]
) -> list[dict[str, Any]] | None:
    """Rows of columns by row number, or of rows by their names."""
    names = values[0].keys()
    if not names or any(value.keys() != names for value in values):
        return None
    if all(name.isdigit() for name in names):
        return [{column: table[column][row] for column in table} for row in names]
    return list(values) if len(values) >= LEAST_NAMED_ROWS else None


def _read(path: Path, _columns: Collection[str] | None) -> Records:
    with open_text(path) as file:
        rows = _rows(file.read(MAX_CHARACTERS)) or []
    for number, row in enumerate(rows, 1):
        yield Record(number, row)


JSON_TABLE = FileFormat(
    name="json", extensions=(".jsonl", ".ndjson", ".json"), read=_read, recognizes=_is_table
)
