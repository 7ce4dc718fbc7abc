"""Segments: a list of texts, each with its mask, joined as they are: `text`, and `label` (or
`train`, `weight`), which says whether the text is trained."""

from collections.abc import Mapping
from typing import Any

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.conversation import as_list, stored
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    RowFormat,
    RowProblemError,
    RowTexts,
)
from tasks.ingestion.rows import text_problem

MASKS = ("label", "train", "weight")


def _mask(segment: Mapping[str, Any]) -> Any:
    return next((segment[name] for name in MASKS if name in segment), None)


def _fits(bound: BoundFormat, values: Values) -> bool:
    try:
        found = as_list("", bound.value("segments", values))
    except RowProblemError:
        return False
    return bool(found) and "text" in found[0]


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    name = bound.columns["segments"].spec
    segments: list[dict[str, Any]] = []
    for number, given in enumerate(as_list(name, bound.value("segments", values)), 1):
        text, is_trained = given.get("text"), _mask(given)
        if problem := text_problem(f"text of segment {number}", text, False):
            raise RowProblemError(problem)
        if not isinstance(is_trained, bool | int | float):
            raise RowProblemError(f"segment {number} has no label true or false")
        segments.append({"text": text or "", "train": bool(is_trained)})
    trained = [one["text"] for one in segments if one["train"] and one["text"]]
    if not any(text.strip() for text in trained):
        raise RowProblemError(f"{name} has no text to train on: no label is true")
    masked = [one["text"] for one in segments if not one["train"] and one["text"]]
    return stored("segments", masked, trained, {"segments": segments})


SEGMENTS = RowFormat(
    "segments", {"segments": ("segments",)}, _fits, _texts, lambda _mapping: ("segments",)
)
