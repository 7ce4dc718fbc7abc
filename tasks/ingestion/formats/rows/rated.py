"""Rated answers: a prompt and a completion, or messages, and a label that says whether the answer
is wanted.

As with preference pairs, `take: chosen` trains on the wanted answers; the others become ledger
entries.
"""

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rows.messages import MESSAGES
from tasks.ingestion.formats.rows.prompt_completion import PROMPT_COMPLETION, answered
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    RowFormat,
    RowProblemError,
    RowTexts,
)


def _fits(bound: BoundFormat, values: Values) -> bool:
    label = bound.value("label", values)
    is_rated = isinstance(label, bool | int) and label in (0, 1)
    return is_rated and any(form.fits(bound, values) for form in (PROMPT_COMPLETION, MESSAGES))


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    label = bound.value("label", values)
    if not isinstance(label, bool | int) or label != 1:
        name = bound.columns["label"].spec
        raise RowProblemError(f"{name} is {label}: the answer is labeled as bad")
    if MESSAGES.fits(bound, values):
        return MESSAGES.texts(bound, values)
    return answered(bound, values, "completion")


RATED = RowFormat(
    "rated",
    {**MESSAGES.roles, **PROMPT_COMPLETION.roles, "label": ("label",)},
    _fits,
    _texts,
    lambda _mapping: ("label",),
    choice="answers with a label, good and bad ones",
)
