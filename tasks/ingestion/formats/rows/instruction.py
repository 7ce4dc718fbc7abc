"""Instruction, input and output: three columns of text, under any names."""

from collections.abc import Mapping
from typing import Any

from tasks.ingestion.formats.rows.protocol import ColumnMapping, RowFormat, RowTexts
from tasks.ingestion.rows import text_problem

ROLES = RowTexts._fields


def _texts(values: Mapping[str, Any], mapping: ColumnMapping) -> RowTexts | str:
    columns, problems = mapping.columns, []
    for role in ROLES:
        column, is_required = columns[role], role in mapping.required
        if is_required and column not in values:
            problems.append(f"no column {column!r}")
        elif problem := text_problem(column, values.get(column), is_required):
            problems.append(problem)
    if problems:
        return "; ".join(problems)
    return RowTexts._make([values.get(columns[role]) or "" for role in ROLES])


def _required_columns(mapping: ColumnMapping) -> list[tuple[str, str]]:
    """Columns that are required, and those that the settings name: many data sets have no column
    "input", but a column under any other name was chosen on purpose."""
    return [
        (role, column)
        for role, column in mapping.columns.items()
        if role in mapping.required or column != role or role not in ROLES
    ]


INSTRUCTION = RowFormat("instruction", _texts, _required_columns)
