"""Comparison of two tuned models by the tables that their evaluations stored; nothing is run.

Rows and problems that both evaluations measured are joined, with the earlier model in the place of
the base, so that the gate's own statistics compare the two in pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from tasks.evaluation.completion.span_results import CompletionResult, SpanCompletion
from tasks.evaluation.gate import verdict
from tasks.evaluation.results import (
    Attempt,
    Evaluation,
    ProblemResult,
    RowResult,
    RowSet,
)
from tasks.evaluation.untouched.registry import PROBE_NAMES

# settings of an evaluation that may differ between two models that are compared
HARMLESS = frozenset(
    {
        "resamples",
        "loss_margin_percent",
        "pass_margin_points",
        "seed",
        "generation_batch",
        "window_tokens",
    }
)
Records = Sequence[Mapping[str, Any]]


def different_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Settings that forbid a comparison, each with both values; "" none."""
    names = sorted((before.keys() | after.keys()) - HARMLESS)
    return ", ".join(
        f"{n} {before.get(n)} and {after.get(n)}" for n in names if before.get(n) != after.get(n)
    )


def decide(
    rows: tuple[Records, Records],
    texts: tuple[Records, Records],
    completions: tuple[Records, Records],
    margins: Mapping[str, Any],
) -> verdict.Gate:
    """The gate over what both evaluations measured.

    Args:
        rows: Records of rows.parquet of the earlier and the later model; empty where losses can't
            be compared, as their tokens differ.
        texts: The same of generations.parquet.
        completions: The same of completions.parquet.
        margins: The gate's settings.
    """
    joined = Evaluation(
        row_sets=join_rows(*rows),
        problems=join_problems(*texts),
        completions=join_completions(*completions),
    )
    return verdict.decide(joined, **margins)


def join_rows(old: Records, new: Records) -> tuple[RowSet, ...]:
    """Rows that both measured, the earlier tuned model as the base."""

    def name(row: Mapping[str, Any]) -> tuple[str, str, int]:
        return str(row["row_set"]), str(row["row_id"]), int(row["tokens"])

    known = {name(row): row for row in old}
    sets: dict[str, list[RowResult]] = {}
    for row in new:
        if (before := known.get(name(row))) is not None:
            result = RowResult(
                row_id=row["row_id"],
                cluster=row["cluster"],
                tokens=row["tokens"],
                text_bytes=row["text_bytes"],
                base_loss_sum=before["tuned_loss_sum"],
                tuned_loss_sum=row["tuned_loss_sum"],
                base_correct=before["tuned_correct"],
                tuned_correct=row["tuned_correct"],
                ending_tokens=row["ending_tokens"],
                # without these before content and endings were apart; such a row matches only if
                # it has no ending, since `tokens` counted both
                base_ending_loss_sum=before.get("tuned_ending_loss_sum", 0.0),
                tuned_ending_loss_sum=row["tuned_ending_loss_sum"],
                base_ending_correct=before.get("tuned_ending_correct", 0),
                tuned_ending_correct=row["tuned_ending_correct"],
            )
            sets.setdefault(str(row["row_set"]), []).append(result)
    return tuple(RowSet(n, tuple(rows), probe=n in PROBE_NAMES) for n, rows in sets.items())


def join_problems(old: Records, new: Records) -> tuple[ProblemResult, ...]:
    """Graded problems that both were given with the same prompt."""
    before, after = _tuned(old), _tuned(new)
    return tuple(
        ProblemResult(*name, tuple(attempts), tuple(after[name]))
        for name, attempts in before.items()
        if name in after
    )


def join_completions(old: Records, new: Records) -> tuple[CompletionResult, ...]:
    """Spans that both completed after the same prompt."""
    before, after = (
        {(row["span_id"], row["prompt"]): row for row in rows if row["model"] == "tuned"}
        for rows in (old, new)
    )
    own = [field.name for field in fields(SpanCompletion)]
    return tuple(
        CompletionResult(
            **{f.name: row[f.name] for f in fields(CompletionResult) if f.name in row},
            base=SpanCompletion(**{name: before[name_of][name] for name in own}),
            tuned=SpanCompletion(**{name: row[name] for name in own}),
        )
        for name_of, row in after.items()
        if name_of in before
    )


def _tuned(texts: Records) -> dict[tuple[str, str, str, str], list[Attempt]]:
    """The tuned model's graded attempts by (suite, problem, style, prompt)."""
    found: dict[tuple[str, str, str, str], list[Attempt]] = {}
    for row in texts:
        if row["model"] == "tuned" and row["verdict"]:
            name = (row["suite"], row["problem_id"], row["style"], row["prompt"])
            attempt = Attempt("", row["tokens"], row["stopped"], row["verdict"])
            found.setdefault(name, []).append(attempt)
    return found
