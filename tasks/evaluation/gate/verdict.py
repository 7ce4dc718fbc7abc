"""The verdict of an evaluation: improved, inconclusive or regressed, with its reasons.

*regressed*: some guarded value is worse by more than its margin, its whole 95 % interval beyond it.
*improved*: not regressed, some value that is no probe is better after Holm's correction and by at
least the least gain that counts, and none is worse.
*inconclusive*: anything else; the data can't tell, or the gain is too small to matter.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from tasks.evaluation.gate import statistics
from tasks.evaluation.gate.comparison import Comparison, Margins, compare
from tasks.evaluation.gate.wording import breach, change
from tasks.evaluation.metrics.summary import DIGITS
from tasks.evaluation.results import Evaluation

ALPHA = 0.05


@dataclass(frozen=True)
class Gate:
    """What merge and promotion obey.

    Attributes:
        verdict: "improved", "inconclusive" or "regressed".
        reasons: Sentences that say why.
        comparisons: What was compared.
    """

    verdict: str
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


def decide(
    evaluation: Evaluation,
    *,
    loss_margin_percent: float = 1.0,
    pass_margin_points: float = 3.0,
    min_loss_gain_percent: float = 0.0,
    min_share_gain_points: float = 0.0,
    resamples: int = 10_000,
    seed: int = 0,
) -> Gate:
    """Compare base and tuned model on everything measured and give the verdict.

    Args:
        evaluation: What was measured.
        loss_margin_percent: How much a loss may rise, of the base's.
        pass_margin_points: How far pass@1 and exact match may fall, in percentage points.
        min_loss_gain_percent: Least fall of a loss that counts as better, of the base's.
        min_share_gain_points: Least rise of token accuracy and pass@1 that counts as better.
        resamples: Draws of the bootstrap.
        seed: Of the draws.
    """
    margins = Margins(
        loss_margin_percent / 100,
        pass_margin_points / 100,
        min_loss_gain_percent / 100,
        min_share_gain_points / 100,
    )
    compared = compare(evaluation, margins, resamples, seed)
    adjusted = statistics.holm([c.p for c in compared])
    return _verdict(
        tuple(
            _with_outcome(replace(c, p_adjusted=p)) for c, p in zip(compared, adjusted, strict=True)
        )
    )


def to_dict(gate: Gate) -> dict[str, Any]:
    """JSON-ready gate.json, rounded so that the order of a sum does not show."""
    comparisons = [
        {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in asdict(c).items()}
        for c in gate.comparisons
    ]
    return {"verdict": gate.verdict, "reasons": list(gate.reasons), "comparisons": comparisons}


def _with_outcome(c: Comparison) -> Comparison:
    sign = -1 if c.lower_is_better else 1
    outcome = "unclear"
    if c.p_adjusted < ALPHA:
        outcome = "better" if sign * c.difference > 0 else "worse"
        if outcome == "better" and abs(c.difference) < c.gain:
            outcome = "too small"
    # the end of the interval that favors the tuned model: if even that is beyond the margin ...
    best = c.low if c.lower_is_better else c.high
    breached = c.margin is not None and best is not None and sign * best < -c.margin
    return replace(c, outcome=outcome, breached=breached)


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
    else:
        reasons = ["Nothing was measured."]
    return Gate("inconclusive", tuple(reasons), comparisons)
