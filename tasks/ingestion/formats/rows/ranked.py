"""Ranked answers: a prompt and a list of answers, each with a score or a rank, or with a list of
those in another column.

As with preference pairs, `take: chosen` trains on the best answer; the others are counted.
"""

from collections.abc import Mapping
from typing import Any

from tasks.ingestion.formats.columns import Values, decoded
from tasks.ingestion.formats.rows.preference import ROLES as PAIR_ROLES
from tasks.ingestion.formats.rows.preference import chosen_texts
from tasks.ingestion.formats.rows.protocol import BoundFormat, RowFormat, RowTexts

ROLES = {name: usual for name, usual in PAIR_ROLES.items() if name != "rejected"} | {
    "chosen": ("completions", "answers", "responses", "candidates", "outputs"),
    "label": ("scores", "ratings", "rewards", "ranks"),
}
TEXTS = ("response", "answer", "completion", "text", "content", "output")
SCORES = ("overall_score", "score", "rating", "reward", "fine-grained_score")  # higher is better
RANK = "rank"  # 1 is best


def _ranked(bound: BoundFormat, values: Values) -> list[tuple[float, str]]:
    """(score, text) of each answer; [] where the value is no list of ranked answers."""
    answers, scores = (decoded(bound.value(role, values)) for role in ("chosen", "label"))
    if not isinstance(answers, list):
        return []
    if isinstance(scores, list) and len(scores) == len(answers):
        name = RANK if bound.columns["label"].spec.lower().startswith(RANK) else SCORES[0]
        answers = [{TEXTS[0]: a, name: s} for a, s in zip(answers, scores, strict=True)]
    found = [_scored(one) for one in answers]
    return [] if None in found else [one for one in found if one]


def _scored(answer: Any) -> tuple[float, str] | None:
    """Score and text of an answer."""
    if not isinstance(answer, Mapping):
        return None
    text = next((answer[name] for name in TEXTS if isinstance(answer.get(name), str)), None)
    given = next(((name, answer[name]) for name in (*SCORES, RANK) if name in answer), None)
    if text is None or given is None:
        return None
    try:
        score = float(given[1])
    except (TypeError, ValueError):
        score = float("-inf")  # not rated
    return (-score if given[0] == RANK else score), text


def _fits(bound: BoundFormat, values: Values) -> bool:
    return len(_ranked(bound, values)) > 1


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    answers = _ranked(bound, values)
    best = max(answers, key=lambda one: one[0])[1] if answers else None
    return chosen_texts(bound, {**values, bound.columns["chosen"].spec: best})


def _left_out(bound: BoundFormat, values: Values) -> int:
    return len(_ranked(bound, values)) - 1


RANKED = RowFormat(
    "ranked",
    ROLES,
    _fits,
    _texts,
    lambda _mapping: ("chosen",),
    choice="lists of answers with scores or ranks",
    left_out=_left_out,
)
