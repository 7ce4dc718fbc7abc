"""How often the comparison of two models claims a difference: by chance, and where there is one.

    python -m benchmarks.verdict            # the tables of benchmarks/README.md; 35 minutes

Each run draws the sizes of projects (equal, or lognormal with sigma 1 or 2) and the change of each
project: normal, Student's t with 2 degrees of freedom, or exponential, all with mean zero plus a
shift. The share of runs with p < 0.05 is the error where the shift is zero, and the power else.
For comparison: the bootstrap's standard error with Student's t, CR2 with Satterthwaite's degrees of
freedom, and the permutation of the projects' signs.
"""

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tasks.core.rows.held_out import FEWEST_CLUSTERS

from tasks.evaluation.gate import statistics
from tasks.evaluation.gate.cluster_inference import ratio_difference

Floats = NDArray[np.float64]
Draw = np.random.Generator
EFFECTS: dict[str, Callable[[Draw, int], Floats]] = {
    "normal": lambda draw, count: draw.standard_normal(count),
    "t2": lambda draw, count: draw.standard_t(2, count),
    "exponential": lambda draw, count: draw.standard_exponential(count) - 1,
}
SIZES = {0: "equal", 1: "lognormal 1", 2: "lognormal 2"}
CLUSTERS = (3, 5, 9, 20, 60)
ALPHA = 0.05
MARGIN = 0.01  # evaluate.gate.loss_margin_percent
Test = Callable[[Floats, Floats, int], float]


def ours(change: Floats, weights: Floats, draws: int) -> float:
    """p of the gate's comparison of rows, 1 below the least number of projects."""
    if len(weights) < FEWEST_CLUSTERS:
        return 1.0
    names = [f"{i:03}" for i in range(len(weights))]
    nothing = np.zeros(len(weights))
    return ratio_difference(
        names, list(nothing), list(change), list(weights), resamples=draws, seed=0
    ).p


def bootstrap(change: Floats, weights: Floats, draws: int) -> float:
    """Bootstrap of projects: its standard error with Student's t."""
    count = len(weights)
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=draws)
    drawn = (times @ change) / (times @ weights)
    error = drawn.std() * np.sqrt(count / (count - 1))
    value = abs(change.sum() / weights.sum())
    return 2 * float(stats.t.sf(value / error, count - 1))


def cr2(change: Floats, weights: Floats, draws: int) -> float:
    """CR2 (Bell and McCaffrey 2002) of the weighted mean, with Satterthwaite's degrees."""
    share = weights / weights.sum()
    value = change.sum() / weights.sum()
    residual = change / weights - value
    # least squares of the projects' changes with weights: hat values are the shares
    error = np.sqrt(np.sum(share**2 * residual**2 / (1 - share)))
    # the variance estimator as a quadratic form in independent changes of equal variance
    scale = share / np.sqrt(1 - share)
    form = (np.eye(len(share)) - share[None, :]) * scale[:, None]
    gram = form @ form.T
    degrees = np.trace(gram) ** 2 / np.sum(gram * gram)
    return 2 * float(stats.t.sf(abs(value) / error, degrees))


def signs(change: Floats, weights: Floats, draws: int) -> float:
    """Permutation of the projects' signs."""
    count = len(change)
    if count <= 9:
        flips = 1.0 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        flips = np.random.default_rng(0).choice([-1.0, 1.0], size=(draws, count))
        flips[0] = 1
    moved = np.abs(flips @ change)
    return float(np.mean(moved >= moved[0] * (1 - 1e-12)))


TESTS: dict[str, Test] = {
    "finetune": ours,
    "bootstrap and t": bootstrap,
    "CR2": cr2,
    "signs": signs,
}


def simulate(
    clusters: int,
    sigma: float,
    effects: str,
    *,
    shift: float,
    runs: int,
    draws: int,
    test: Test = ours,
    per_size: int = 20,
) -> float:
    """Share of the runs with p below 0.05.

    Args:
        clusters: Number of projects.
        sigma: Of their lognormal sizes; 0: equal.
        effects: A name in `EFFECTS`.
        shift: Mean change, in the effects' unit.
        runs: How many.
        draws: Draws of the test itself.
        test: A test of (changes, sizes, draws).
        per_size: Runs with the same sizes.
    """
    draw = np.random.default_rng([clusters, int(10 * sigma), len(effects), runs])
    found = 0
    for run in range(runs):
        if run % per_size == 0:
            weights = draw.lognormal(0, sigma, clusters) if sigma else np.ones(clusters)
        change = weights * (EFFECTS[effects](draw, clusters) + shift)
        found += test(change, weights, draws) < ALPHA
    return found / runs


def regressions(sets: int, runs: int, corrected: bool) -> float:
    """Share of runs without an effect that end as regressed, with so many sets of 40 problems."""
    draw = np.random.default_rng(sets)
    found = 0
    for _ in range(runs):
        p_values = []
        for _ in range(sets):
            base, tuned = draw.random((2, 40)) < draw.beta(0.5, 1.0, 40)
            p_values.append(statistics.mcnemar(list(base), list(tuned)).p_beyond(-0.03))
        found += min(statistics.holm(p_values) if corrected else p_values) < ALPHA
    return found / runs


def forgotten(
    texts: int, worse: float, *, spread: float, runs: int, draws: int, kinds: int = 3
) -> float:
    """Share of runs that end as regressed when untouched texts have become worse.

    Args:
        texts: Of each kind.
        worse: Mean rise of the loss, as a share of the base's.
        spread: Standard deviation of this rise among texts.
        runs: How many.
        draws: Draws of the test itself.
        kinds: Of texts; beside them, two guarded values have not changed.
    """
    draw = np.random.default_rng([texts, int(1000 * worse), int(1000 * spread)])
    names, found = [f"{i:03}" for i in range(texts)], 0
    for _ in range(runs):
        p_values = [1.0, 1.0]
        for _ in range(kinds):
            base = draw.normal(2.0, 0.3, texts).clip(0.5)
            tuned = base * (1 + worse + draw.normal(0, spread, texts))
            change = ratio_difference(
                names, list(base), list(tuned), [1.0] * texts, resamples=draws, seed=0
            )
            p_values.append(change.p_beyond(MARGIN * change.base))
        found += min(statistics.holm(p_values)) < ALPHA
    return found / runs


def rows(runs: int, draws: int) -> Iterable[tuple[Any, ...]]:
    """The cells of the table."""
    for clusters in CLUSTERS:
        for sigma, title in SIZES.items():
            for effects in EFFECTS:
                shares = [
                    simulate(clusters, sigma, effects, shift=0, runs=runs, draws=draws, test=test)
                    for test in TESTS.values()
                ]
                power = [
                    simulate(clusters, sigma, effects, shift=s, runs=runs // 4, draws=draws)
                    for s in (1, 3)
                ]
                yield clusters, title, effects, *shares, *power


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--forgetting", action="store_true", help="print the last table alone")
    given = parser.parse_args()
    if not given.forgetting:
        print_errors(given)
    print("| texts of each kind | spread | 1 % worse | 2.5 % worse | 5 % worse |")
    print("|--:|--:|--:|--:|--:|")
    for texts in (12, 24, 56, 96):
        for spread in (0.02, 0.04, 0.08):
            shares = [
                forgotten(texts, worse, spread=spread, runs=given.runs // 4, draws=given.draws)
                for worse in (0.01, 0.025, 0.05)
            ]
            cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
            print(f"| {texts} | {100 * spread:g} % | {cells} |", flush=True)


def print_errors(given: argparse.Namespace) -> None:
    """Print the tables of projects and of sets."""
    print(f"| projects | sizes | effects | {' | '.join(TESTS)} | power at 1 | power at 3 |")
    print("|--:|---|---|" + "--:|" * (len(TESTS) + 2))
    for clusters, title, effects, *shares in rows(given.runs, given.draws):
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
        print(f"| {clusters} | {title} | {effects} | {cells} |", flush=True)
    for sets in (1, 3, 10):
        before, after = (regressions(sets, given.runs, corrected) for corrected in (False, True))
        print(f"| {sets} | {100 * before:.1f} % | {100 * after:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
