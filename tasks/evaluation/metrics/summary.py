"""metrics.json: the numbers of an evaluation, by row set and by suite and style, without times."""

from collections.abc import Iterable, Sequence
from typing import Any

from tasks.evaluation.completion.span_results import CompletionResult, by_style
from tasks.evaluation.metrics.ends_by_itself import ENDS_BY_ITSELF
from tasks.evaluation.metrics.protocol import RowSums, row_sums
from tasks.evaluation.metrics.registry import COMPLETION_METRICS, ROW_METRICS, problem_metrics
from tasks.evaluation.results import (
    NOT_JUDGED,
    Attempts,
    Evaluation,
    ProblemResult,
    RowSet,
    by_suite,
    counted,
    graded,
)

DIGITS = 6  # more would show the order of a sum


def metrics(evaluation: Evaluation) -> dict[str, Any]:
    """JSON-ready numbers of base and tuned model."""
    ks = evaluation.settings.get("pass_at", (1,))
    row_sets = {rows.name: _rows(rows) for rows in evaluation.row_sets}
    return {
        "rows": {name: numbers for name, numbers in row_sets.items() if numbers["tokens"]},
        "problems": {
            f"{suite} ({style})": _problems(problems, style, ks)
            for (suite, style), problems in by_suite(evaluation.problems).items()
        },
        **({"completion": _completions(evaluation)} if evaluation.completions else {}),
        "samples": {
            "generations": len(evaluation.samples),
            "base": {ENDS_BY_ITSELF.key: _ends([(s.base,) for s in evaluation.samples])},
            "tuned": {ENDS_BY_ITSELF.key: _ends([(s.tuned,) for s in evaluation.samples])},
        },
        "sandbox": evaluation.sandbox,
        "not_measured": list(evaluation.not_measured),
        "settings": dict(evaluation.settings),
    }


def _completions(evaluation: Evaluation) -> dict[str, Any]:
    """Completed spans by style: all of them, by size and by language."""
    return {
        "left_out": dict(evaluation.spans_left_out),
        **{
            style: {
                **_spans(found),
                "by_size": {size: _spans(own) for size, own in groups(found, "size")},
                "by_language": {name: _spans(own) for name, own in groups(found, "language")},
            }
            for style, found in by_style(evaluation.completions).items()
        },
    }


def groups(
    results: Sequence[CompletionResult], name: str
) -> list[tuple[str, list[CompletionResult]]]:
    """Completions by the value of a field, in the order of their first appearance."""
    found: dict[str, list[CompletionResult]] = {}
    for result in results:
        found.setdefault(getattr(result, name), []).append(result)
    return list(found.items())


def _spans(results: Sequence[CompletionResult]) -> dict[str, Any]:
    values = {metric.key: metric.values(results) for metric in COMPLETION_METRICS}
    known = {key: pair for key, pair in values.items() if pair is not None}
    return {
        "spans": len(results),
        "projects": len({result.cluster for result in results}),
        "base": {key: round(base, DIGITS) for key, (base, _) in known.items()},
        "tuned": {key: round(tuned, DIGITS) for key, (_, tuned) in known.items()},
    }


def _rows(rows: RowSet) -> dict[str, Any]:
    base, tuned = row_sums(rows.rows)
    return {
        "rows": len(rows.rows),
        "projects": len({row.cluster for row in rows.rows}),
        "tokens": base.tokens,
        "base": _row_values(base),
        "tuned": _row_values(tuned),
    }


def _row_values(sums: RowSums) -> dict[str, float]:
    values = {m.key: m.value(sums) for m in ROW_METRICS} if sums.tokens else {}
    return {key: round(value, DIGITS) for key, value in values.items() if value is not None}


def _problems(problems: Sequence[ProblemResult], style: str, ks: Iterable[int]) -> dict[str, Any]:
    found = graded(problems)
    unjudged = sum(any(a.outcome == NOT_JUDGED for a in (*p.base, *p.tuned)) for p in problems)
    return {
        "problems": len(problems),
        "infra": len(problems) - len(found) - unjudged,
        **({"not_judged": unjudged} if unjudged else {}),
        "base": _problem_values([counted(p.base) for p in found], style, ks),
        "tuned": _problem_values([counted(p.tuned) for p in found], style, ks),
    }


def _problem_values(problems: Sequence[Attempts], style: str, ks: Iterable[int]) -> dict[str, Any]:
    if not problems:
        return {}
    values = {metric.key: metric.value(problems) for metric in problem_metrics(style, ks)}
    outcomes = [attempt.outcome for attempts in problems for attempt in attempts]
    return {
        **{key: round(value, DIGITS) for key, value in values.items() if value is not None},
        "verdicts": {name: outcomes.count(name) for name in sorted(set(outcomes))},
    }


def _ends(problems: Sequence[Attempts]) -> float | None:
    value = ENDS_BY_ITSELF.value(problems)
    return None if value is None else round(value, DIGITS)
