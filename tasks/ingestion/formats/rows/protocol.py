"""The shape of a row format: how the values of one record become the texts of one row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class RowTexts(NamedTuple):
    """The texts of a row, in the order of the row schema."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class ColumnMapping:
    """How the records of one source become rows.

    Attributes:
        source: Name of the source.
        columns: {role: column}: the texts of the row format, and "project" and "licence", which may
            be absent.
        required: Roles whose texts may not be empty.
        licence: SPDX expression that the user states, "" if none.
    """

    source: str
    columns: Mapping[str, str]
    required: frozenset[str]
    licence: str


@dataclass(frozen=True)
class RowFormat:
    """One row format.

    Attributes:
        name: The `kind` of its rows.
        texts: (values, mapping) -> the texts of the row, or why the record has none. Texts hold no
            NUL byte and are valid UTF-8.
        required_columns: (role, column) pairs that at least one record of a source must have.
    """

    name: str
    texts: Callable[[Mapping[str, Any], ColumnMapping], RowTexts | str]
    required_columns: Callable[[ColumnMapping], list[tuple[str, str]]]
