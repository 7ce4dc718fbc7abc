"""pass@k: chance that one of k attempts passes the tests; the gate compares pass@1."""

import math
from collections.abc import Sequence
from functools import partial

from tasks.evaluation.metrics.protocol import SHARE, ProblemMetric, mean
from tasks.evaluation.results import MATCHED, PASS, Attempts


def estimate(attempts: int, passed: int, k: int) -> float:
    """Unbiased chance that one of k attempts passes, 1 - C(n-c, k) / C(n, k) (Chen et al. 2021)."""
    if not 1 <= k <= attempts:
        raise ValueError(f"k is {k}, attempts are {attempts}")
    return 1.0 - math.comb(attempts - passed, k) / math.comb(attempts, k)


def passed(attempts: Attempts) -> int:
    """Attempts that pass."""
    return sum(attempt.outcome == PASS for attempt in attempts)


def pass_share(attempts: Attempts) -> float:
    """Share of the attempts at one problem that pass."""
    return passed(attempts) / len(attempts)


def mean_estimate(problems: Sequence[Attempts], k: int) -> float | None:
    """Mean over problems; None where one has fewer than k attempts."""
    if min(map(len, problems), default=0) < k:
        return None
    return mean(estimate(len(attempts), passed(attempts), k) for attempts in problems)


def pass_at(k: int) -> ProblemMetric:
    """The metric for one k."""
    return ProblemMetric(
        name=f"pass@{k}",
        key=f"pass@{k}",
        scale=SHARE,
        is_guarded=k == 1,
        value=partial(mean_estimate, k=k),
        measures=lambda style: style not in MATCHED,
        share=pass_share if k == 1 else None,
    )


PASS_AT_1 = pass_at(1)
