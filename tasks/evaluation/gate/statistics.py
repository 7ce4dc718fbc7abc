"""Paired statistics: interval and p value of a difference between two models on the same data.

Pure functions over arrays. Pass/fail is compared by exact McNemar, ratios (loss per token, token
accuracy) in `cluster_inference`; a family of tests is corrected by Holm.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Tuned minus base.

    Attributes:
        base: Value of the base.
        tuned: Value of the tuned model.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        p: Two-sided; 1 where it can't be computed.
        units: Number of clusters or problems.
        p_at: Two-sided p value of a true difference; None where it can't be computed.
        detectable: Smallest true difference that is found with power 0.8; None unknown.
    """

    base: float
    tuned: float
    low: float
    high: float
    p: float
    units: int
    p_at: Callable[[float], float] | None = field(default=None, compare=False)
    detectable: float | None = None

    @property
    def value(self) -> float:
        """The difference itself."""
        return self.tuned - self.base

    def without_interval(self) -> "Difference":
        """The same values, of which nothing is claimed."""
        return replace(self, low=-math.inf, high=math.inf, p=1.0, p_at=None, detectable=None)

    def p_beyond(self, limit: float) -> float:
        """p value of a true difference that is at most as far from zero as `limit`, against one
        beyond it; 1 where the data don't point there."""
        if math.copysign(1, limit) * (self.value - limit) <= 0:
            return 1.0
        if self.p_at is None:
            return 0.0 if self.low == self.high else 1.0  # all moved alike, or no interval
        return self.p_at(limit)


def mcnemar(base: Sequence[bool], tuned: Sequence[bool]) -> Difference:
    """Pass/fail of the same problems: exact McNemar, with the interval of Bonett and Price (2012).

    That interval adds one imaginary problem to each kind of flip, so it keeps its width where no
    problem flipped, where a bootstrap would have none.
    """
    before, after = np.asarray(base, dtype=bool), np.asarray(tuned, dtype=bool)
    count = len(before)
    if not count:
        raise ValueError("no problems: nothing to compare")
    won, lost = int(np.sum(~before & after)), int(np.sum(before & ~after))
    up, down = (won + 1) / (count + 2), (lost + 1) / (count + 2)
    error = math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return Difference(
        base=float(before.mean()),
        tuned=float(after.mean()),
        low=max(-1.0, up - down - half),
        high=min(1.0, up - down + half),
        p=float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0,
        units=count,
        p_at=lambda true: 2 * float(stats.norm.sf(abs(up - down - true) / error)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family (Holm 1979): bounds the chance of any false positive."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def mcnemar_power(problems: int, discordance: float, effect: float, alpha: float = 0.05) -> float:
    """Chance that exact McNemar finds a true change.

    Args:
        problems: Number of problems.
        discordance: Share of problems on which the two models differ; at least |effect|.
        effect: True change of the pass rate, as a share.
        alpha: Two-sided level.
    """
    discordance = min(1.0, max(discordance, abs(effect)))
    if discordance == 0:
        return 0.0
    win = (discordance + effect) / (2 * discordance)
    flips = np.arange(problems + 1)
    chance = stats.binom.pmf(flips, problems, discordance)
    # for each number of flips, the largest number of losses that still rejects; -1: none does
    edge = stats.binom.ppf(alpha / 2, flips, 0.5)
    edge = np.where(stats.binom.cdf(edge, flips, 0.5) > alpha / 2, edge - 1, edge)
    found = stats.binom.cdf(edge, flips, 1 - win) + stats.binom.cdf(edge, flips, win)
    return float(np.sum(chance * np.where(edge >= 0, found, 0.0)))


def minimum_detectable_effect(
    problems: int, discordance: float, power: float = 0.8
) -> float | None:
    """Smallest true change of the pass rate (a share) found with `power`; None: not even 1."""
    if mcnemar_power(problems, discordance, 1.0) < power:
        return None
    low, high = 0.0, 1.0
    while high - low > 0.0005:
        middle = (low + high) / 2
        if mcnemar_power(problems, discordance, middle) >= power:
            high = middle
        else:
            low = middle
    return high
