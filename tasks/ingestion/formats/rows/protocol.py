"""The shape of a row format: how the values of one record become the texts of one row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks.ingestion.formats.columns import MISSING, Column, Values
from tasks.ingestion.rows import text_problem


class RowProblemError(Exception):
    """Why a record has no row; one ledger entry."""


class RowTexts(NamedTuple):
    """The texts of a row, and its kind.

    Attributes:
        conversation: As in the row schema; instruction and output are then its plain views.
    """

    kind: str
    instruction: str
    input: str
    output: str
    conversation: str = ""


@dataclass(frozen=True)
class ColumnMapping:
    """How the records of one source become rows.

    Attributes:
        source: Name of the source.
        columns: {role: column}, as the settings name them; roles that they do not name are found by
            the usual names of their columns.
        required: Roles of the format `instruction` whose texts may not be empty.
        licence: SPDX expression that the user states, "" if none.
        format: Name of the row format; None: detected by file.
        take: Answers of preference pairs to train on; None: a file of pairs is an error.
    """

    source: str
    columns: Mapping[str, str]
    required: frozenset[str]
    licence: str
    format: str | None = None
    take: str | None = None


@dataclass(frozen=True)
class RowFormat:
    """One row format.

    Attributes:
        name: Value of the setting `format`.
        roles: {role: usual names of its column}, without regard to case, the first one preferred.
        fits: (bound, values) -> whether a record is in this format.
        texts: (bound, values) -> the texts of the row. They hold no NUL byte and are valid UTF-8.
            Raises RowProblemError.
        needs: (mapping) -> roles that every file must have a column for.
        choice: What its rows are, if not all answers are good ones: the settings must then say
            which to take.
        left_out: (bound, values) -> number of the answers in a record that its row leaves out;
            None: all of them are in it.
    """

    name: str
    roles: Mapping[str, tuple[str, ...]]
    fits: Callable[["BoundFormat", Values], bool]
    texts: Callable[["BoundFormat", Values], RowTexts]
    needs: Callable[[ColumnMapping], tuple[str, ...]]
    choice: str = ""
    left_out: Callable[["BoundFormat", Values], int] | None = None


@dataclass(frozen=True)
class BoundFormat:
    """A row format and the columns of one file.

    Attributes:
        columns: {role: column}. A role that is needed and has no column has its usual name.
        ambiguous: {role: columns} of roles that several columns could have.
    """

    form: RowFormat
    mapping: ColumnMapping
    columns: Mapping[str, Column]
    ambiguous: Mapping[str, tuple[str, ...]]

    def value(self, role: str, values: Values) -> Any:
        """The value of a role; None where the record has no such column."""
        column = self.columns.get(role)
        value = None if column is None else column.get(values)
        return None if value is MISSING else value

    def text(self, role: str, values: Values, is_required: bool = True) -> str:
        """The text of a role; "" where it is empty.

        Raises:
            RowProblemError: It can't be stored, or is empty and required.
        """
        column = self.columns.get(role)
        if column is None:
            return ""
        value = column.get(values)
        if value is MISSING:
            if is_required:
                names = ", ".join(map(repr, column.missing(values)))
                raise RowProblemError(f"no column {names}")
            return ""
        name = column.spec
        if name.partition(".")[0] != role:
            name = f"{role} (column {column.spec})"
        if problem := text_problem(name, value, is_required):
            raise RowProblemError(problem)
        return value or ""

    def has_text(self, role: str, values: Values) -> bool:
        """Whether a role has a value that is text."""
        return isinstance(self.value(role, values), str)
