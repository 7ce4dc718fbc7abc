"""An evaluation -> the numbers of metrics.json: sums over tokens, shares, no clock."""

import math
from collections.abc import Iterable
from typing import Any

from tasks.evaluation.metrics.statistics import pass_at_k
from tasks.evaluation.results import (
    INFRA,
    MATCHED,
    PASS,
    Attempt,
    Evaluation,
    ProblemResult,
    RowSet,
)

DIGITS = 6  # more would be noise of the summing order


def metrics(evaluation: Evaluation) -> dict[str, Any]:
    """JSON-ready numbers of base and tuned, by row set and by suite and style."""
    return {
        "rows": {rows.name: _rows(rows) for rows in evaluation.row_sets if _tokens(rows)},
        "problems": {
            f"{suite} ({style})": _problems(
                problems, style in MATCHED, evaluation.settings.get("pass_at", (1,))
            )
            for (suite, style), problems in by_suite(evaluation.problems).items()
        },
        "samples": {
            "generations": len(evaluation.samples),
            "base": {"stops": _stops(sample.base for sample in evaluation.samples)},
            "tuned": {"stops": _stops(sample.tuned for sample in evaluation.samples)},
        },
        "sandbox": evaluation.sandbox,
        "not_measured": list(evaluation.not_measured),
        "settings": dict(evaluation.settings),
    }


def by_suite(problems: Iterable[ProblemResult]) -> dict[tuple[str, str], list[ProblemResult]]:
    """Problems by (suite, style), in the order of their first appearance."""
    groups: dict[tuple[str, str], list[ProblemResult]] = {}
    for problem in problems:
        groups.setdefault((problem.suite, problem.style), []).append(problem)
    return groups


def judged(problems: Iterable[ProblemResult]) -> list[ProblemResult]:
    """Problems on which both models have a verdict of their own; an infra failure is nobody's."""
    return [p for p in problems if _charged(p.base) and _charged(p.tuned)]


def _charged(attempts: tuple[Attempt, ...]) -> list[Attempt]:
    return [a for a in attempts if a.verdict not in ("", INFRA)]


def pass_share(attempts: tuple[Attempt, ...]) -> float:
    """Share of the judged attempts that pass: pass@1 of one problem."""
    counted = _charged(attempts)
    return sum(a.verdict == PASS for a in counted) / len(counted)


def _tokens(rows: RowSet) -> int:
    return sum(row.tokens for row in rows.rows)


def _rows(rows: RowSet) -> dict[str, Any]:
    tokens, text_bytes = _tokens(rows), sum(row.text_bytes for row in rows.rows)

    def model(loss_sum: float, correct: int) -> dict[str, float]:
        values = {
            "loss": loss_sum / tokens,
            "perplexity": math.exp(min(loss_sum / tokens, 700.0)),  # e^710 overflows
            "token_accuracy": correct / tokens,
        }
        if text_bytes:
            values["bits_per_byte"] = loss_sum / math.log(2) / text_bytes
        return {name: round(value, DIGITS) for name, value in values.items()}

    return {
        "rows": len(rows.rows),
        "projects": len({row.cluster for row in rows.rows}),
        "tokens": tokens,
        "base": model(
            math.fsum(r.base_loss_sum for r in rows.rows), sum(r.base_correct for r in rows.rows)
        ),
        "tuned": model(
            math.fsum(r.tuned_loss_sum for r in rows.rows), sum(r.tuned_correct for r in rows.rows)
        ),
    }


def _problems(problems: list[ProblemResult], matched: bool, ks: Iterable[int]) -> dict[str, Any]:
    counted = judged(problems)
    shares = (("exact_match", 1),) if matched else tuple((f"pass@{k}", k) for k in ks)
    return {
        "problems": len(problems),
        "infra": len(problems) - len(counted),
        "base": _solved([p.base for p in counted], shares),
        "tuned": _solved([p.tuned for p in counted], shares),
    }


def _solved(
    tried: list[tuple[Attempt, ...]], shares: tuple[tuple[str, int], ...]
) -> dict[str, Any]:
    """Shares of problems solved by one of k attempts, by name; those with enough attempts."""
    if not tried:
        return {}
    counted = [_charged(attempts) for attempts in tried]
    fewest = min(len(attempts) for attempts in counted)
    passed = [sum(a.verdict == PASS for a in attempts) for attempts in counted]
    verdicts = [a.verdict for attempts in counted for a in attempts]
    found = {
        name: round(
            sum(pass_at_k(len(attempts), c, k) for attempts, c in zip(counted, passed, strict=True))
            / len(counted),
            DIGITS,
        )
        for name, k in shares
        if k <= fewest
    }
    return {
        **found,
        "stops": _stops(a for attempts in counted for a in attempts),
        "verdicts": {v: verdicts.count(v) for v in sorted(set(verdicts))},
    }


def _stops(attempts: Iterable[Attempt]) -> float | None:
    ended = [attempt.stopped for attempt in attempts]
    return round(sum(ended) / len(ended), DIGITS) if ended else None
