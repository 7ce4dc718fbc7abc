"""The verdict: improved, inconclusive or regressed, and the comparisons that it rests on.

*regressed*: some guarded value is worse by more than its margin, its whole 95 % interval beyond it.
*improved*: not regressed, some asked-for value is better after Holm's correction and by at least
the least gain that counts, and none is worse.
*inconclusive*: anything else; the data can't tell, or the gain is too small to matter.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from tasks.evaluation.metrics import statistics
from tasks.evaluation.metrics.summary import (
    DIGITS,
    by_suite,
    judged,
    pass_share,
)
from tasks.evaluation.results import (
    INFILLING,
    MATCHED,
    PASS,
    Attempt,
    Evaluation,
    ProblemResult,
    RowSet,
)

ALPHA = 0.05
FEW_CLUSTERS = 10
PASSED, EXACT = "pass@1", "exact match"


@dataclass(frozen=True)
class Comparison:
    """One value of base and tuned.

    Attributes:
        name: "loss", "token accuracy", "pass@1" or "exact match".
        on: What it was measured on, such as "held-out" or "humaneval, prompt".
        lower_is_better: For losses.
        base: Value of the base: nats a token for a loss, a share for the others.
        tuned: Value of the tuned model.
        difference: tuned - base.
        low: Lower end of its 95 % interval; None where there is none (one cluster).
        high: Upper end.
        p: Two-sided.
        p_adjusted: After Holm over all comparisons of the evaluation.
        units: How many `unit` were compared.
        unit: "projects", "rows" (each stands for itself) or "problems".
        margin: How much worse it may be, in the unit of the value; None: not guarded.
        probe: Not asked to improve.
        outcome: "better", "worse", "unclear" (by p_adjusted) or "too small": better, but by less
            than `gain`.
        gain: Least difference that counts as better, in the unit of the value.
        breached: Worse by more than the margin, the whole interval beyond it.
        note: What the numbers can't tell, in a sentence; "" nothing to say.
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
    """Compare base and tuned on everything measured and give the verdict.

    Args:
        evaluation: What was measured.
        loss_margin_percent: How much a loss may rise, of the base's.
        pass_margin_points: How far pass@1 and exact match may fall, in percentage points.
        min_loss_gain_percent: Least fall of a loss that counts as better, of the base's.
        min_share_gain_points: Least rise of token accuracy and pass@1 that counts as better.
        resamples: Draws of the bootstrap.
        seed: Of the draws.
    """
    loss_gain, share_gain = min_loss_gain_percent / 100, min_share_gain_points / 100
    compared: list[Comparison] = []
    for rows in evaluation.row_sets:
        compared += _row_comparisons(rows, loss_margin_percent / 100, resamples, seed)
    for (suite, style), problems in by_suite(evaluation.problems).items():
        if counted := judged(problems):
            name = EXACT if style in MATCHED else PASSED
            found = _pass_comparison(
                name, f"{suite} ({style})", counted, pass_margin_points / 100, resamples, seed
            )
            compared.append(replace(found, probe=style == INFILLING))
    adjusted = statistics.holm([c.p for c in compared])
    comparisons = tuple(
        _judge(
            replace(c, p_adjusted=p, gain=loss_gain * c.base if c.lower_is_better else share_gain)
        )
        for c, p in zip(compared, adjusted, strict=True)
    )
    return _verdict(comparisons)


def to_dict(gate: Gate) -> dict[str, Any]:
    """JSON-ready gate.json, rounded so that the order of a sum does not show."""
    raw = asdict(gate)
    raw["comparisons"] = [
        {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in c.items()}
        for c in raw["comparisons"]
    ]
    return {**raw, "reasons": list(raw["reasons"])}


def from_dict(raw: dict[str, Any]) -> Gate:
    """The gate of a gate.json."""
    comparisons = tuple(Comparison(**c) for c in raw["comparisons"])
    return Gate(raw["verdict"], tuple(raw["reasons"]), comparisons)


def _row_comparisons(rows: RowSet, margin: float, resamples: int, seed: int) -> list[Comparison]:
    """Loss and token accuracy of one row set; the loss is guarded."""
    if not sum(row.tokens for row in rows.rows):
        return []
    columns: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "loss": ([r.base_loss_sum for r in rows.rows], [r.tuned_loss_sum for r in rows.rows]),
        "token accuracy": (
            [r.base_correct for r in rows.rows],
            [r.tuned_correct for r in rows.rows],
        ),
    }
    found = []
    for name, (base, tuned) in columns.items():
        difference = statistics.ratio_difference(
            [r.cluster for r in rows.rows],
            base,
            tuned,
            [r.tokens for r in rows.rows],
            resamples=resamples,
            seed=seed,
        )
        guard = margin * difference.base if name == "loss" else None
        unit = "projects" if difference.units < len(rows.rows) else "rows"
        found.append(_comparison(name, rows.name, difference, unit, guard, probe=rows.probe))
    return found


def _pass_comparison(
    name: str, on: str, problems: Sequence[ProblemResult], margin: float, resamples: int, seed: int
) -> Comparison:
    """pass@1 or exact match: McNemar for one attempt each, bootstrap over problems for several."""
    if all(len(p.base) == len(p.tuned) == 1 for p in problems):
        base = [p.base[0].verdict == PASS for p in problems]
        tuned = [p.tuned[0].verdict == PASS for p in problems]
        flips = sum(b != t for b, t in zip(base, tuned, strict=True))
        note = f"{on}: {detectable(len(problems), flips, name)}"
        return replace(
            _comparison(name, on, statistics.mcnemar(base, tuned), "problems", margin),
            note=note,
        )
    before, after = ([pass_share(a) for a in tried] for tried in _tried(problems))
    # one imaginary problem of each kind of flip, as `mcnemar` has it: where few problems moved, or
    # all by as much, a bootstrap of them alone would claim certainty
    found = statistics.ratio_difference(
        [*(p.problem_id for p in problems), "\0won", "\0lost"],
        [*before, 0.0, 1.0],
        [*after, 1.0, 0.0],
        [1.0] * (len(problems) + 2),
        resamples=resamples,
        seed=seed,
    )
    count = len(problems)
    real = replace(found, base=sum(before) / count, tuned=sum(after) / count, units=count)
    return _comparison(name, on, real, "problems", margin)


def _tried(problems: Sequence[ProblemResult]) -> tuple[list[tuple[Attempt, ...]], ...]:
    return [p.base for p in problems], [p.tuned for p in problems]


@cache
def detectable(problems: int, flips: int, what: str = PASSED) -> str:
    """The minimum detectable effect of a pass/fail comparison, in a plain sentence."""
    effect = statistics.minimum_detectable_effect(problems, flips / problems)
    seen = f"with {problems} {_plural('problem', problems)}, {flips} of them judged differently,"
    if effect is None:
        return f"{seen} no change of {what}, however large, is found four times in five."
    smallest = math.ceil(effect * 1000) / 10
    return (
        f"{seen} a true change of {what} is found four times in five only if it is at least "
        f"{smallest:.1f} points."
    )


def _comparison(
    name: str,
    on: str,
    difference: statistics.Difference,
    unit: str,
    margin: float | None,
    *,
    probe: bool = False,
) -> Comparison:
    bounded = math.isfinite(difference.low)
    note = ""
    if unit != "problems" and difference.units < FEW_CLUSTERS:
        few = f"{difference.units} {_plural(unit[:-1], difference.units)}"
        note = (
            f"Only {few} to resample: the interval is wide because the next may differ."
            if bounded
            else f"All rows come from {few}: no interval can be given."
        )
    return Comparison(
        name=name,
        on=on,
        lower_is_better=name == "loss",
        base=difference.base,
        tuned=difference.tuned,
        difference=difference.value,
        low=difference.low if bounded else None,
        high=difference.high if bounded else None,
        p=difference.p,
        p_adjusted=difference.p,
        units=difference.units,
        unit=unit,
        margin=margin,
        probe=probe,
        note=note,
    )


def _judge(c: Comparison) -> Comparison:
    sign = -1 if c.lower_is_better else 1
    outcome = "unclear"
    if c.p_adjusted < ALPHA:
        outcome = "better" if sign * c.difference > 0 else "worse"
        if outcome == "better" and abs(c.difference) < c.gain:
            outcome = "too small"
    best = (
        c.low if c.lower_is_better else c.high
    )  # the end of the interval that is kindest to tuned
    breached = c.margin is not None and best is not None and sign * best < -c.margin
    return replace(c, outcome=outcome, breached=breached)


def _verdict(comparisons: tuple[Comparison, ...]) -> Gate:
    if breached := [c for c in comparisons if c.breached]:
        return Gate("regressed", tuple(_breach(c) for c in breached), comparisons)
    better = [c for c in comparisons if c.outcome == "better" and not c.probe]
    worse = [c for c in comparisons if c.outcome == "worse"]
    if better and not worse:
        return Gate("improved", tuple(_change(c, "better") for c in better), comparisons)
    if not comparisons:
        return Gate("inconclusive", ("Nothing was measured.",), comparisons)
    if worse:
        reasons = [_change(c, "worse, within its margin") for c in worse]
        reasons += [_change(c, "better") for c in better]
    elif small := [c for c in comparisons if c.outcome == "too small"]:
        reasons = [_change(c, "better, but by too little to count") for c in small]
    else:
        reasons = ["No difference is larger than chance explains."]
    return Gate("inconclusive", tuple(reasons), comparisons)


def _change(c: Comparison, how: str) -> str:
    return f"{_named(c)} is {how}: {shown(c, c.base)} → {shown(c, c.tuned)} ({interval(c)})."


def _breach(c: Comparison) -> str:
    assert c.margin is not None
    margin = f"{c.margin:.3f} nats" if c.name == "loss" else f"{100 * c.margin:.1f} points"
    return f"{_change(c, 'worse')[:-1]}, more than the margin of {margin}."


def _named(c: Comparison) -> str:
    name = c.name if c.name.startswith("pass") else c.name.capitalize()
    return f"{name} on {c.on}"


def shown(c: Comparison, value: float) -> str:
    """A value of a comparison as a person reads it: nats with three digits, shares in percent."""
    return f"{value:.3f}" if c.name == "loss" else f"{100 * value:.1f} %"


def shown_difference(c: Comparison, value: float) -> str:
    """A difference, signed: nats with three digits, or points."""
    scaled, digits = (value, 3) if c.name == "loss" else (100 * value, 1)
    text = f"{scaled:+.{digits}f}"
    text = text.replace("-", "+") if float(text) == 0 else text
    return text.replace("-", "−")


def interval(c: Comparison) -> str:
    """The interval of the difference in words."""
    if c.low is None or c.high is None:
        return "no interval"
    unit = "nats" if c.name == "loss" else "points"
    low, high = shown_difference(c, c.low), shown_difference(c, c.high)
    return f"95 % interval {low} to {high} {unit}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"
