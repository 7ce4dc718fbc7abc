"""Paired comparisons of base and tuned model: each compared metric on each row set or suite.

Rows are compared by the unit of the split; problems with one attempt each by exact McNemar, with
several attempts by the share of each problem.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from tasks.core.rows.split_unit import FEWEST_CLUSTERS, ROW, plural
from tasks.evaluation.gate import cluster_inference, statistics
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

_POWERED = (1.96 + 0.84) ** 2  # (z of 95 % + z of 80 % power), squared: sample sizes scale so


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
        low: Lower end of its 95 % interval; None where there is none (too few clusters).
        high: Upper end.
        p: Two-sided.
        p_adjusted: After Holm over all comparisons of the evaluation.
        units: How many `unit` were compared.
        unit: "projects" (or another unit of the split), "rows", "spans" or "problems".
        margin: How much worse it may be, in the unit of the value; None: not guarded.
        probe: Not expected to improve.
        outcome: "better", "worse", "unclear" (by p_adjusted) or "too small": better, but by less
            than `gain`.
        gain: Least difference that counts as better, in the unit of the value.
        p_breach: That it is worse by more than the margin, after Holm over the guarded values.
        breached: Worse by more than the margin, by p_breach.
        detectable: Smallest true change found with power 0.8; None unknown, or of problems.
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
    p_breach: float = 1.0
    breached: bool = False
    detectable: float | None = None
    note: str = ""


def compare(
    evaluation: Evaluation,
    margins: Margins,
    resamples: int,
    seed: int,
    fewest: int = FEWEST_CLUSTERS,
) -> list[Comparison]:
    """All comparisons, p values not corrected yet and outcomes open.

    Args:
        evaluation: What was measured.
        margins: Tolerances.
        resamples: Draws of the distribution without an effect.
        seed: Of the draws.
        fewest: With fewer units, no claim is made.
    """
    found, how = [], (evaluation.unit, margins, resamples, seed, fewest)
    for rows in evaluation.row_sets:
        if any(row.tokens for row in rows.rows):
            for metric in ROW_METRICS:
                if metric.terms is not None:
                    found.append(_of_rows(metric, rows, *how))
    for (suite, style), problems in by_suite(evaluation.problems).items():
        if shared := graded(problems):
            for measured in problem_metrics(style, (1,)):
                if measured.share is not None:
                    on = f"{suite} ({style})"
                    one = _of_problems(measured, on, shared, margins, resamples, seed)
                    found.append(replace(one, probe=style == INFILLING))
    return found


def _of_rows(
    metric: RowMetric,
    rows: RowSet,
    cluster: str,
    margins: Margins,
    resamples: int,
    seed: int,
    fewest: int,
) -> Comparison:
    assert metric.terms is not None
    terms = [metric.terms(row) for row in rows.rows]
    difference = cluster_inference.ratio_difference(
        [row.cluster for row in rows.rows],
        [base for base, _ in terms],
        [tuned for _, tuned in terms],
        [row.tokens for row in rows.rows],
        resamples=resamples,
        seed=seed,
    )
    is_row = len({row.cluster for row in rows.rows}) == len(rows.rows)
    unit = plural(ROW if is_row else cluster, 2)
    if difference.units < fewest:
        note = cluster_inference.too_few(rows.name, difference.units, unit, fewest)
        found = as_comparison(metric, rows.name, difference.without_interval(), unit, margins)
        return replace(found, probe=rows.probe, note=note)
    found = as_comparison(metric, rows.name, difference, unit, margins)
    return replace(found, probe=rows.probe, note=detectable_in_clusters(metric, found))


def detectable_in_clusters(metric: Metric, c: Comparison) -> str:
    """The minimum detectable effect of a comparison by cluster, and how many would be enough."""
    if not c.detectable or not metric.is_guarded:
        return ""  # one note per row set is enough
    size = metric.scale.margin(c.detectable)
    if metric.scale.is_relative and c.base:
        size += f" ({100 * c.detectable / c.base:.1f} % of the base's)"
    said = (
        f"{c.on}: with {c.units:,} {c.unit}, a true change of {metric.name} is found four times in "
        f"five if it is at least {size}."
    )
    if c.p < 1 - statistics.CONFIDENCE or c.low is None or not c.difference:
        return said
    # its standard error shrinks with the root of their number
    error = (c.detectable - (c.difference - c.low)) / 0.84
    enough = math.ceil(c.units * _POWERED * (error / c.difference) ** 2)
    return f"{said} For the change measured, about {max(enough, c.units + 1):,} {c.unit} would do."


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
        found = as_comparison(metric, on, difference, "problems", margins)
        return replace(found, note=f"{on}: {detectable(len(problems), flips, metric.name)}")
    # one imaginary problem of each kind of flip, as in `mcnemar`: where few problems moved, or
    # all by the same amount, the problems alone would claim certainty
    difference = cluster_inference.ratio_difference(
        [*(p.problem_id for p in problems), "\0won", "\0lost"],
        [*base, 0.0, 1.0],
        [*tuned, 1.0, 0.0],
        [1.0] * (len(problems) + 2),
        resamples=resamples,
        seed=seed,
    )
    count = len(problems)
    real = replace(difference, base=sum(base) / count, tuned=sum(tuned) / count, units=count)
    return as_comparison(metric, on, real, "problems", margins)


def as_comparison(
    metric: Metric, on: str, difference: statistics.Difference, unit: str, margins: Margins
) -> Comparison:
    """A difference as a comparison, with the margins of its metric."""
    if metric.scale.is_relative:
        margin, gain = margins.relative * difference.base, margins.relative_gain * difference.base
    else:
        margin, gain = margins.points, margins.points_gain
    bounded = math.isfinite(difference.low)
    limit = margin if metric.lower_is_better else -margin
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
        p_breach=difference.p_beyond(limit) if metric.is_guarded else 1.0,
        detectable=difference.detectable,
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
