"""Answers side by side: problems whose outcome changed first, then samples, then a few others."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tasks.core.system.escape_text import escape_controls
from tasks.core.text.special_tokens import readable
from tasks.evaluation.results import PASS, Attempt, Evaluation, ProblemResult, graded

MAX_SHOWN = 8  # flips of each kind, and samples, in the page
MAX_SAME = 4  # problems with the same outcome of both models
MAX_TEXT = 4_000  # characters of one text
FEW = 3  # answers of each kind in Markdown
LABELS = {"won": "fail → pass", "lost": "pass → fail"}


def answers(evaluation: Evaluation) -> dict[str, Any]:
    """What the templates show: `answers`, `few` of them, counts of `flips` and of those `left`."""
    limit = evaluation.settings.get("max_new_tokens")
    kinds = _by_outcome(evaluation.problems, limit)
    samples = [
        _answer("held-out", "", s.row_id, s.prompt, s.reference, (s.base, s.tuned), limit)
        for s in evaluation.samples
    ]
    groups = [
        (kinds["won"], MAX_SHOWN),
        (kinds["lost"], MAX_SHOWN),
        (samples, MAX_SHOWN),
        (kinds["same"], MAX_SAME),
    ]
    return {
        "flips": {kind: len(kinds[kind]) for kind in LABELS},
        "answers": [answer for found, most in groups for answer in found[:most]],
        "few": [answer for found, _ in groups for answer in found[:FEW]],
        "left": sum(max(0, len(found) - most) for found, most in groups),
    }


def _by_outcome(
    problems: Sequence[ProblemResult], limit: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Problems that one model solves and the other does not, and the others, of suites in turn."""
    found: dict[str, list[dict[str, Any]]] = {"won": [], "lost": [], "same": []}
    seen: Counter[tuple[str, str]] = Counter()
    others = []
    for p in graded(problems):
        before, after = (attempts[0].outcome == PASS for attempts in (p.base, p.tuned))
        kind = "same" if before == after else "won" if after else "lost"
        label = LABELS.get(kind, "both pass" if after else "both fail")
        name, pair = f"{p.problem_id} · {p.style}", (p.base[0], p.tuned[0])
        answer = _answer(label, kind, name, p.prompt, p.reference, pair, limit)
        if kind == "same":
            others.append((seen[p.suite, p.style], answer))
            seen[p.suite, p.style] += 1
        else:
            found[kind].append(answer)
    found["same"] = [answer for _, answer in sorted(others, key=lambda pair: pair[0])]
    return found


def _answer(
    label: str,
    kind: str,
    name: str,
    prompt: str,
    reference: str,
    pair: tuple[Attempt, Attempt],
    limit: int | None,
) -> dict[str, Any]:
    base, tuned = (_text(attempt, limit) for attempt in pair)
    texts = {"prompt": visible(readable(prompt)), "reference": visible(reference)}
    return {"label": label, "kind": kind, "id": name, **texts, "base": base, "tuned": tuned}


def _text(attempt: Attempt, limit: int | None) -> dict[str, Any]:
    # a stop rule ends a raw completion after its function and an infilling after its line
    by_rule = limit and attempt.tokens < limit
    return {
        "text": visible(attempt.text) or "(nothing)",
        "outcome": attempt.outcome,
        "detail": visible(attempt.detail)[:200],
        "tokens": attempt.tokens,
        "cut": "" if attempt.stopped else "broken off" if by_rule else "cut at the limit",
    }


def visible(text: str) -> str:
    """The text, cut at `MAX_TEXT`, with characters that would hide or reorder it escaped."""
    return escape_controls(cut(text, MAX_TEXT))


def cut(text: str, length: int) -> str:
    """The beginning of a text, and how much is left out."""
    left = len(text) - length
    return f"{text[:length]}\n… {left:,} more characters" if left > 0 else text
