"""Instruction, input and output: three columns of text."""

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    ColumnMapping,
    RowFormat,
    RowProblemError,
    RowTexts,
)

ROLES = {
    "instruction": ("instruction", "question", "query", "problem"),
    "input": ("input", "context"),
    "output": ("output", "response", "answer", "solution"),
}


def fits_instruction(bound: BoundFormat, values: Values) -> bool:
    """Whether a record has all texts that are required."""
    return all(bound.has_text(role, values) for role in needs_of_instruction(bound.mapping))


def needs_of_instruction(mapping: ColumnMapping) -> tuple[str, ...]:
    """The roles that are required, in their usual order."""
    return tuple(role for role in ROLES if role in mapping.required)


def plain_texts(bound: BoundFormat, values: Values) -> RowTexts:
    """Instruction, input and output of a record, with all problems of it at once.

    Raises:
        RowProblemError: One of them can't be the text of a row.
    """
    texts, problems = [], []
    for role in ROLES:
        try:
            texts.append(bound.text(role, values, role in bound.mapping.required))
        except RowProblemError as error:
            problems.append(str(error))
    if problems:
        raise RowProblemError("; ".join(problems))
    return RowTexts("instruction", *texts)


INSTRUCTION = RowFormat("instruction", ROLES, fits_instruction, plain_texts, needs_of_instruction)
