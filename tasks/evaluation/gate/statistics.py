"""Paired statistics: interval and p value of a difference between two models on the same data.

Pure functions over arrays. Ratios (loss per token, token accuracy) are compared by a cluster
bootstrap, pass/fail by exact McNemar; a family of tests is corrected by Holm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
CHUNK = 1_000  # resamples at once: 10,000 x 5,000 clusters would take 400 MB


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
    """

    base: float
    tuned: float
    low: float
    high: float
    p: float
    units: int

    @property
    def value(self) -> float:
        """The difference itself."""
        return self.tuned - self.base


def ratio_difference(
    clusters: Sequence[str],
    base: Sequence[float],
    tuned: Sequence[float],
    weights: Sequence[float],
    *,
    resamples: int,
    seed: int,
) -> Difference:
    """Difference of two ratios of sums, `sum(tuned)/sum(weights) - sum(base)/sum(weights)`.

    Whole clusters are drawn, so rows of one project do not count as independent. The interval is
    the bootstrap's standard error times Student's t for the number of clusters. The percentile
    interval is too short for few clusters (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap", section 3.2), and held-out data of a small project has few.

    Args:
        clusters: Cluster of each row.
        base: Numerator of each row (summed loss, correct tokens) for the base.
        tuned: The same for the tuned model.
        weights: Denominator of each row (tokens).
        resamples: Number of bootstrap draws.
        seed: Of the draws.

    Raises:
        ValueError: if the weights sum to zero.
    """
    names, member = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.stack(
        [np.bincount(member, np.asarray(column, dtype=float)) for column in (base, tuned, weights)],
        axis=1,
    )
    total = sums.sum(axis=0)
    if total[2] <= 0:
        raise ValueError("no weight: nothing to compare")
    at = (float(total[0] / total[2]), float(total[1] / total[2]))
    count = len(names)
    if count < 2:
        return Difference(*at, low=-math.inf, high=math.inf, p=1.0, units=count)
    drawn = _resampled(sums, resamples, seed)
    error = float(np.std(drawn)) * math.sqrt(count / (count - 1))
    half = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    value = at[1] - at[0]
    p = 2 * float(stats.t.sf(abs(value) / error, count - 1)) if error else float(value == 0)
    return Difference(*at, low=value - half, high=value + half, p=p, units=count)


def _resampled(sums: NDArray[Any], resamples: int, seed: int) -> Floats:
    """Differences of the ratios over draws of clusters with replacement; [resamples]."""
    rng = np.random.default_rng(seed)
    count = len(sums)
    even = np.full(count, 1 / count)
    drawn = []
    for start in range(0, resamples, CHUNK):
        times = rng.multinomial(count, even, size=min(CHUNK, resamples - start))
        base, tuned, weight = (times @ sums).T
        drawn.append(np.divide(tuned - base, weight, out=np.zeros_like(base), where=weight > 0))
    return np.concatenate(drawn)


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
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    half *= math.sqrt(max(0.0, up + down - (up - down) ** 2) / (count + 2))
    return Difference(
        base=float(before.mean()),
        tuned=float(after.mean()),
        low=max(-1.0, up - down - half),
        high=min(1.0, up - down + half),
        p=float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0,
        units=count,
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
