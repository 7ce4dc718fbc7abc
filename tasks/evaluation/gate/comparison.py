"""Paired comparisons of base and tuned model: each compared metric on each row set or suite.

Rows are resampled by project; problems with one attempt each are compared by exact McNemar, with
several attempts by a bootstrap over problems.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from tasks.evaluation.gate import statistics
from tasks.evaluation.metrics.protocol import Metric, ProblemMetric, RowMetric
from tasks.evaluation.metrics.registry import ROW_METRICS, problem_metrics
from tasks.evaluation.results import (
    INFILLING,
    Evaluation,
    ProblemResult,
    RowSet,
    by_suite,
    counted,
    graded,
)

FEW_CLUSTERS = 10  # below this, a note says that the interval is wide


@dataclass(frozen=True)
class Margins:
    """The gate's tolerances, as shares.

    Attributes:
        relative: A guarded value of a relative scale (loss) may be worse by this share of the base.
        points: Any other guarded value may fall by this difference.
        relative_gain: Least improvement of a relative scale that counts, as a share of the base.
        points_gain: Least improvement of any other value that counts.
    """

    relative: float
    points: float
    relative_gain: float
    points_gain: float


@dataclass(frozen=True)
class Comparison:
    """One metric of base and tuned model.

    Attributes:
        name: Of the metric.
        on: What it was measured on, such as "held-out" or "humaneval (prompt)".
        lower_is_better: For losses.
        base: Value of the base: nats a token for a loss, a share for the others.
        tuned: Value of the tuned model.
        difference: tuned - base.
        low: Lower end of its 95 % interval; None where there is none (one cluster).
        high: Upper end.
        p: Two-sided.
        p_adjusted: After Holm over all comparisons of the evaluation.
        units: How many `unit` were compared.
        unit: "projects", "rows" (each is its own cluster) or "problems".
        margin: How much worse it may be, in the unit of the value; None: not guarded.
        probe: Not expected to improve.
        outcome: "better", "worse", "unclear" (by p_adjusted) or "too small": better, but by less
            than `gain`.
        gain: Least difference that counts as better, in the unit of the value.
        breached: Worse by more than the margin, the whole interval beyond it.
        note: What the numbers can't show, in a sentence; "" none.
    """

    name: str
    on: str
    lower_is_better: bool
    base: float
    tuned: float
    difference: float
    low: float | None
    high: float | None
    p: float
    p_adjusted: float
    units: int
    unit: str
    margin: float | None
    probe: bool = False
    outcome: str = "unclear"
    gain: float = 0.0
    breached: bool = False
    note: str = ""


def compare(
    evaluation: Evaluation, margins: Margins, resamples: int, seed: int
) -> list[Comparison]:
    """All comparisons, p values not corrected yet and outcomes open.

    Args:
        evaluation: What was measured.
        margins: Tolerances.
        resamples: Draws of the bootstrap.
        seed: Of the draws.
    """
    found = []
    for rows in evaluation.row_sets:
        if any(row.tokens for row in rows.rows):
            for metric in ROW_METRICS:
                if metric.terms is not None:
                    found.append(_of_rows(metric, rows, margins, resamples, seed))
    for (suite, style), problems in by_suite(evaluation.problems).items():
        if shared := graded(problems):
            for measured in problem_metrics(style, (1,)):
                if measured.share is not None:
                    on = f"{suite} ({style})"
                    one = _of_problems(measured, on, shared, margins, resamples, seed)
                    found.append(replace(one, probe=style == INFILLING))
    return found


def _of_rows(
    metric: RowMetric, rows: RowSet, margins: Margins, resamples: int, seed: int
) -> Comparison:
    assert metric.terms is not None
    terms = [metric.terms(row) for row in rows.rows]
    difference = statistics.ratio_difference(
        [row.cluster for row in rows.rows],
        [base for base, _ in terms],
        [tuned for _, tuned in terms],
        [row.tokens for row in rows.rows],
        resamples=resamples,
        seed=seed,
    )
    unit = "projects" if difference.units < len(rows.rows) else "rows"
    note = ""
    if difference.units < FEW_CLUSTERS:
        few = f"{difference.units} {unit if difference.units != 1 else unit[:-1]}"
        note = (
            f"Only {few} to resample: the interval is wide because the next may differ."
            if math.isfinite(difference.low)
            else f"All rows come from {few}: no interval can be given."
        )
    found = _comparison(metric, rows.name, difference, unit, margins)
    return replace(found, probe=rows.probe, note=note)


def _of_problems(
    metric: ProblemMetric,
    on: str,
    problems: Sequence[ProblemResult],
    margins: Margins,
    resamples: int,
    seed: int,
) -> Comparison:
    assert metric.share is not None
    base = [metric.share(counted(p.base)) for p in problems]
    tuned = [metric.share(counted(p.tuned)) for p in problems]
    if all(len(p.base) == len(p.tuned) == 1 for p in problems):
        flips = sum(b != t for b, t in zip(base, tuned, strict=True))
        difference = statistics.mcnemar([b == 1 for b in base], [t == 1 for t in tuned])
        found = _comparison(metric, on, difference, "problems", margins)
        return replace(found, note=f"{on}: {detectable(len(problems), flips, metric.name)}")
    # one imaginary problem of each kind of flip, as in `mcnemar`: where few problems moved, or
    # all by the same amount, a bootstrap of the problems alone would claim certainty
    difference = statistics.ratio_difference(
        [*(p.problem_id for p in problems), "\0won", "\0lost"],
        [*base, 0.0, 1.0],
        [*tuned, 1.0, 0.0],
        [1.0] * (len(problems) + 2),
        resamples=resamples,
        seed=seed,
    )
    count = len(problems)
    real = replace(difference, base=sum(base) / count, tuned=sum(tuned) / count, units=count)
    return _comparison(metric, on, real, "problems", margins)


def _comparison(
    metric: Metric, on: str, difference: statistics.Difference, unit: str, margins: Margins
) -> Comparison:
    if metric.scale.is_relative:
        margin, gain = margins.relative * difference.base, margins.relative_gain * difference.base
    else:
        margin, gain = margins.points, margins.points_gain
    bounded = math.isfinite(difference.low)
    return Comparison(
        name=metric.name,
        on=on,
        lower_is_better=metric.lower_is_better,
        base=difference.base,
        tuned=difference.tuned,
        difference=difference.value,
        low=difference.low if bounded else None,
        high=difference.high if bounded else None,
        p=difference.p,
        p_adjusted=difference.p,
        units=difference.units,
        unit=unit,
        margin=margin if metric.is_guarded else None,
        gain=gain,
    )


@cache
def detectable(problems: int, flips: int, what: str) -> str:
    """The minimum detectable effect of a pass/fail comparison, in a sentence."""
    effect = statistics.minimum_detectable_effect(problems, flips / problems)
    noun = "problem" if problems == 1 else "problems"
    seen = f"with {problems} {noun}, {flips} of them judged differently,"
    if effect is None:
        return f"{seen} no change of {what}, however large, is found four times in five."
    smallest = math.ceil(effect * 1000) / 10
    return (
        f"{seen} a true change of {what} is found four times in five only if it is at least "
        f"{smallest:.1f} points."
    )
