"""Rated answers: a prompt, a completion and a label that says whether the answer is wanted.

As with preference pairs, `take: chosen` trains on the wanted answers; the others become ledger
entries.
"""

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rows.prompt_completion import PROMPT_COMPLETION, answered
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    RowFormat,
    RowProblemError,
    RowTexts,
)


def _fits(bound: BoundFormat, values: Values) -> bool:
    is_rated = isinstance(bound.value("label", values), bool)
    return is_rated and PROMPT_COMPLETION.fits(bound, values)


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    label = bound.value("label", values)
    if label is not True:
        name = bound.columns["label"].spec
        raise RowProblemError(f"{name} is {label}: the answer is labeled as bad")
    return answered(bound, values, "completion")


RATED = RowFormat(
    "rated",
    {**PROMPT_COMPLETION.roles, "label": ("label",)},
    _fits,
    _texts,
    lambda _mapping: ("prompt", "completion", "label"),
    choice="answers with a label, good and bad ones",
)
