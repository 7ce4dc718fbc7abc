"""The verdict of an evaluation: improved, inconclusive or regressed, with its reasons.

*regressed*: some guarded value is worse by more than its margin, after Holm's correction over the
guarded values.
*improved*: not regressed, some value that is no probe is better after Holm's correction and by at
least the least gain that counts, and none is worse.
*inconclusive*: anything else; the data can't tell, or the gain is too small to matter.

Probes can only get worse, so their p values are a family of their own: more kinds of untouched
rows don't make an improvement harder to find.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tasks.core.rows.split_unit import FEWEST_CLUSTERS
from tasks.evaluation.gate import leave_one_out, statistics
from tasks.evaluation.gate.comparison import Comparison, Margins, compare
from tasks.evaluation.gate.completion_comparison import compare_completions
from tasks.evaluation.gate.wording import breach, change, shown_values
from tasks.evaluation.metrics.summary import DIGITS
from tasks.evaluation.results import Evaluation

ALPHA = 0.05


@dataclass(frozen=True)
class Gate:
    """Result of the evaluation, which decides about merge and promotion.

    Attributes:
        verdict: "improved", "inconclusive" or "regressed".
        reasons: Sentences that say why.
        comparisons: What was compared.
        warnings: Sentences about single units of the split that decide the verdict.
        notes: Sentences about what the numbers can show.
    """

    verdict: str
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decide(
    evaluation: Evaluation,
    *,
    loss_margin_percent: float = 1.0,
    pass_margin_points: float = 3.0,
    min_loss_gain_percent: float = 0.0,
    min_share_gain_points: float = 0.0,
    resamples: int = 10_000,
    seed: int = 0,
    without_each: bool = True,
) -> Gate:
    """Compare base and tuned model on everything measured and give the verdict.

    Args:
        evaluation: What was measured.
        loss_margin_percent: How much a loss may rise, of the base's.
        pass_margin_points: How far pass@1 and exact match may fall, in percentage points.
        min_loss_gain_percent: Least fall of a loss that counts as better, of the base's.
        min_share_gain_points: Least rise of token accuracy and pass@1 that counts as better.
        resamples: Draws of the distribution without an effect.
        seed: Of the draws.
        without_each: Find out whether a single unit of the split decides the verdict.
    """
    margins = Margins(
        loss_margin_percent / 100,
        pass_margin_points / 100,
        min_loss_gain_percent / 100,
        min_share_gain_points / 100,
    )

    def judge(measured: Evaluation, fewest: int) -> Gate:
        how = (margins, resamples, seed, fewest)
        # completion first: it is the main purpose of the training
        found = [*compare_completions(measured, *how), *compare(measured, *how)]
        return _verdict(_corrected(found))

    gate = judge(evaluation, FEWEST_CLUSTERS)
    notes = [c.note for c in gate.comparisons if c.note]
    if not without_each:
        return replace(gate, notes=tuple(dict.fromkeys(notes)))
    found = leave_one_out.influences(evaluation)
    notes += [i.sentence() for i in found if i.metric.is_guarded]
    return replace(
        gate,
        notes=tuple(dict.fromkeys(notes)),
        # a unit that is left out must not make the comparison too small to claim anything
        warnings=leave_one_out.warnings(
            evaluation, found, gate.verdict, lambda e: judge(e, FEWEST_CLUSTERS - 1).verdict
        ),
    )


def _corrected(compared: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Holm's correction, over each family, and the outcomes that follow."""
    p_values: dict[int, float] = {}
    for probe in (False, True):
        family = [i for i, c in enumerate(compared) if c.probe == probe]
        p_values |= zip(family, statistics.holm([compared[i].p for i in family]), strict=True)
    guarded = [i for i, c in enumerate(compared) if c.margin is not None]
    holm = statistics.holm([compared[i].p_breach for i in guarded])
    breach_of = dict(zip(guarded, holm, strict=True))
    return tuple(
        _with_outcome(replace(c, p_adjusted=p_values[i], p_breach=breach_of.get(i, 1.0)))
        for i, c in enumerate(compared)
    )


def to_dict(gate: Gate) -> dict[str, Any]:
    """JSON-ready gate.json, rounded so that the order of a sum does not show."""
    comparisons = [
        {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in asdict(c).items()}
        | {"shown": shown_values(c)}
        for c in gate.comparisons
    ]
    return {
        "verdict": gate.verdict,
        "reasons": list(gate.reasons),
        "warnings": list(gate.warnings),
        "comparisons": comparisons,
    }


def _with_outcome(c: Comparison) -> Comparison:
    sign = -1 if c.lower_is_better else 1
    outcome = "unclear"
    if c.p_adjusted < ALPHA:
        outcome = "better" if sign * c.difference > 0 else "worse"
        if outcome == "better" and abs(c.difference) < c.gain:
            outcome = "too small"
    return replace(c, outcome=outcome, breached=c.p_breach < ALPHA)


def _verdict(comparisons: tuple[Comparison, ...]) -> Gate:
    if breached := [c for c in comparisons if c.breached]:
        return Gate("regressed", tuple(map(breach, breached)), comparisons)
    better = [c for c in comparisons if c.outcome == "better" and not c.probe]
    worse = [c for c in comparisons if c.outcome == "worse"]
    if better and not worse:
        return Gate("improved", tuple(change(c, "better") for c in better), comparisons)
    if worse:
        reasons = [change(c, "worse, within its margin") for c in worse]
        reasons += [change(c, "better") for c in better]
    elif small := [c for c in comparisons if c.outcome == "too small"]:
        reasons = [change(c, "better, but by too little to count") for c in small]
    elif comparisons:
        reasons = ["No difference is larger than chance explains."]
        # a set of rows that is too small for any claim, of which the verdict can't speak; the
        # metrics of one set share their note
        reasons += dict.fromkeys(c.note for c in comparisons if c.low is None and not c.probe)
    else:
        reasons = ["Nothing was measured."]
    return Gate("inconclusive", tuple(reasons), comparisons)
