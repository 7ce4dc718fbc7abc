"""Difference of two ratios over clusters: interval and p value, also for few and uneven clusters.

Rows of one project are alike, so a project is one observation, and a large project weighs more.
The statistic is the difference over its jackknife standard error. Student's t for it claims too
much where projects are few, differ in size, or have skewed effects, and so do the bootstrap, CR2
and permutations of signs (benchmarks/README.md). Therefore the statistic is compared with its own
distribution under the null hypothesis. That is simulated for the given project sizes, with project
effects that are normal, heavy-tailed and skewed; the largest of the p values counts.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tasks.core.rows.split_unit import count_of
from tasks.evaluation.gate.statistics import CONFIDENCE, Difference, Floats

CHUNK = 1_000  # draws at once: 10,000 x 5,000 clusters would take 400 MB
_MAX_DRAWN = 20_000_000  # numbers for each kind of effect: a second
_POWER = float(stats.norm.ppf(0.8))


def too_few(on: str, count: int, unit: str, fewest: int) -> str:
    """The note on a comparison of fewer clusters than can show a difference."""
    few = count_of(count, unit.removesuffix("s"))
    return f"{on}: {few} can't show a difference; at least {fewest} can."


def ratio_difference(
    clusters: Sequence[str],
    base: Sequence[float],
    tuned: Sequence[float],
    weights: Sequence[float],
    *,
    resamples: int,
    seed: int,
    comparisons: int = 1,
) -> Difference:
    """Difference of two ratios of sums, `sum(tuned)/sum(weights) - sum(base)/sum(weights)`.

    Args:
        clusters: Cluster of each row.
        base: Numerator of each row (summed loss, correct tokens) for the base.
        tuned: The same for the tuned model.
        weights: Denominator of each row (tokens).
        resamples: Draws of the distribution without an effect; fewer for thousands of clusters.
        seed: Of the draws.
        comparisons: Differences whose intervals hold at the same time (Bonferroni).

    Raises:
        ValueError: if the weights sum to zero.
    """
    sums, _ = cluster_sums(clusters, base, tuned, weights)
    total = sums.sum(axis=0)
    if total[2] <= 0:
        raise ValueError("no weight: nothing to compare")
    at = (float(total[0] / total[2]), float(total[1] / total[2]))
    count = len(sums)
    if count < 2:
        return Difference(*at, low=-math.inf, high=math.inf, p=1.0, units=count)
    error = float(_jackknife_error((sums[:, 1] - sums[:, 0])[None], sums[:, 2])[0])
    value = at[1] - at[0]
    if not error:  # all clusters moved by the same amount
        return Difference(*at, low=value, high=value, p=float(value == 0), units=count)
    null = _null(tuple((sums[:, 2] / total[2]).tolist()), resamples, seed)
    half = _critical(null, comparisons) * error

    def p_at(true: float) -> float:
        return _tail(null, abs(value - true) / error)

    # found with power 0.8 if the true change is so much larger than what is significant
    smallest = half + _POWER * error
    low, high = value - half, value + half
    return Difference(*at, low, high, p_at(0.0), count, p_at, smallest)


def cluster_sums(
    clusters: Sequence[str], *columns: Sequence[float]
) -> tuple[Floats, NDArray[np.str_]]:
    """Sums of columns by cluster, float[clusters, columns], and the names of the clusters; without
    clusters whose last column, the weight, is zero."""
    names, member = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums: Floats = np.stack(
        [np.bincount(member, np.asarray(column, dtype=np.float64)) for column in columns],
        axis=1,
        dtype=np.float64,
    )
    has_weight = sums[:, -1] > 0
    return sums[has_weight], names[has_weight]


def without_each(differences: Floats, weights: Floats) -> Floats:
    """The ratio of sums without each cluster in turn; float[..., clusters]."""
    rest = differences.sum(axis=-1, keepdims=True) - differences
    without: Floats = rest / (weights.sum() - weights)
    return without


def _jackknife_error(differences: Floats, weights: Floats) -> Floats:
    """Jackknife standard error of the ratio of sums; float[draws] of [draws, clusters]."""
    count = len(weights)
    value = differences.sum(axis=1, keepdims=True) / weights.sum()
    spread = ((without_each(differences, weights) - value) ** 2).sum(axis=1)
    error: Floats = np.sqrt(spread * (count - 1) / count)
    return error


@lru_cache(maxsize=64)
def _null(weights: tuple[float, ...], draws: int, seed: int) -> Floats:
    """Sizes of the statistic without an effect, ascending; float[kinds of effects, draws]."""
    rng = np.random.default_rng(seed)
    sizes = np.asarray(weights)
    draws = max(100, min(draws, _MAX_DRAWN // len(sizes)))
    kinds = (
        rng.standard_normal,
        lambda shape: rng.standard_t(2, shape),
        lambda shape: rng.standard_exponential(shape) - 1,
    )
    found = []
    for kind in kinds:
        parts = []
        for start in range(0, draws, CHUNK):
            moved = kind((min(CHUNK, draws - start), len(sizes))) * sizes
            parts.append(np.abs(moved.sum(axis=1)) / _jackknife_error(moved, sizes))
        found.append(np.sort(np.concatenate(parts)))
    return np.stack(found)


def _tail(null: Floats, statistic: float) -> float:
    """The p value: the largest share of draws that are as extreme."""
    draws = null.shape[1]
    extreme = [draws - int(np.searchsorted(drawn, statistic)) for drawn in null]
    return float((1 + max(extreme)) / (1 + draws))


def _critical(null: Floats, comparisons: int) -> float:
    """The statistic that is significant: beyond it, p is below 1 - `CONFIDENCE`, divided by the
    number of comparisons."""
    allowed = max(1, int((1 - CONFIDENCE) / comparisons * (null.shape[1] + 1)))
    return float(null[:, -allowed].max())
