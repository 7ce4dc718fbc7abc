"""The shape of a file format, and the records that it yields.

A format checks no column: which values become the texts of a row, and whether they can, is decided
by the row formats. A malformed record is yielded as an `UnreadableRecord` and the next one is read,
so that one bad line does not cost the rest of a file.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

TURNS = ("role", "from", "speaker")  # fields that only messages have
SPEAKERS = (*TURNS, "sender", "author")  # rows of other data have the last two as well


class Record(NamedTuple):
    """One record and its 1-based line (Parquet, JSON array on one line: its number)."""

    line: int
    values: Mapping[str, Any]


class UnreadableRecord(NamedTuple):
    """A part of a file that is not a record; line 0 is the whole file."""

    line: int
    problem: str
    excerpt: object


Records = Iterator[Record | UnreadableRecord]
Open = Callable[[Collection[str] | None], Records]  # columns that are used (None: all) -> records


@dataclass(frozen=True)
class FileFormat:
    """One file format.

    Attributes:
        name: The builder of the library `datasets` that reads the same format.
        extensions: Lower-case endings of its files.
        read: (path, columns) -> records. `columns` are the names that will be used, None: all; a
            format that can skip the others does not read them. Raises OSError where the file can't
            be read.
        recognizes: Whether a file is in this format, for an extension that several formats share.
        is_text: Whether files are UTF-8 text; other encodings and archives are then reported once
            instead of once per line.
        column_names: Names of a file's columns from its schema; None where only records have them.
    """

    name: str
    extensions: tuple[str, ...]
    read: Callable[[Path, Collection[str] | None], Records]
    recognizes: Callable[[Path], bool] | None = None
    is_text: bool = True
    column_names: Callable[[Path], list[str] | None] = lambda _path: None


def is_message(value: Any) -> bool:
    """Whether a JSON value is a message or turn of a conversation, and no row."""
    return isinstance(value, Mapping) and any(str(name).lower() in TURNS for name in value)


def not_an_object(line: int, values: Any) -> Record | UnreadableRecord:
    """A JSON value that is not an object: a bare list of messages is a record with it, anything
    else a problem."""
    first = values[0] if isinstance(values, list) and values else None
    if is_message(first):
        return Record(line, {"messages": values})
    return UnreadableRecord(line, f"is a JSON {type(values).__name__}, expected an object", values)


def duplicate_column(names: Sequence[str], columns: Collection[str] | None) -> str:
    """The problem of several columns with a name that will be used; "" if there is none."""
    name = next((name for name in sorted(columns or ()) if names.count(name) > 1), None)
    return f"{names.count(name)} columns are called {name!r}" if name else ""
