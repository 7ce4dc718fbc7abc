"""Interval and p value of ratios over clusters: of few, uneven, skewed ones too."""

import math

import numpy as np
import pytest

from benchmarks import verdict
from flows import profiles
from tasks.core.settings import config as configs
from tasks.evaluation.gate import cluster_inference
from tasks.evaluation.gate.cluster_inference import ratio_difference


def test_ratio_difference_is_of_sums():
    found = ratio_difference(
        ["a", "b", "c"], [10, 30, 60], [5, 15, 30], [10, 20, 70], resamples=200, seed=0
    )
    assert (found.base, found.tuned, found.units) == (1.0, 0.5, 3)


def test_the_standard_error_of_equal_clusters_is_that_of_the_mean():
    draw = np.random.default_rng(1)
    change = draw.normal(-0.1, 0.3, 40)
    found = ratio_difference(
        [str(i) for i in range(40)], [0.0] * 40, list(change), [1.0] * 40, resamples=4000, seed=0
    )
    error = change.std(ddof=1) / math.sqrt(40)
    assert found.detectable == pytest.approx(found.high - found.value + 0.8416 * error, rel=1e-3)


@pytest.mark.parametrize("sizes", [0, 2])
@pytest.mark.parametrize("clusters", [6, 20])
@pytest.mark.parametrize("effects", sorted(verdict.EFFECTS))
def test_chance_alone_is_significant_in_at_most_one_of_twenty(clusters, sizes, effects):
    cell = verdict.simulate(clusters, sizes, effects, shift=0.0, runs=400, draws=1000)
    assert cell <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / 400)  # 99 % of the sampling error


def test_the_untouched_texts_of_the_demo_find_a_loss_that_is_worse_by_two_and_a_half_percent():
    demo = configs.load(profiles.locate("cpu_demo")).evaluate.probe_problems
    assert verdict.forgotten(demo, 0.025, spread=0.02, runs=50, draws=1000) >= 0.8
    assert verdict.forgotten(12, 0.025, spread=0.02, runs=50, draws=1000) < 0.5  # as it was


def test_texts_that_are_worse_by_the_margin_alone_are_rarely_a_regression():
    found = verdict.forgotten(56, 0.01, spread=0.04, runs=100, draws=1000)
    assert found <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / 100)


def test_sets_that_did_not_change_are_rarely_a_regression():
    corrected = verdict.regressions(10, 200, corrected=True)
    assert corrected <= 0.05
    assert corrected < verdict.regressions(10, 200, corrected=False)


def test_a_real_change_is_found():
    assert verdict.simulate(20, 0, "normal", shift=1.0, runs=100, draws=1000) > 0.8


@pytest.mark.parametrize("value", [0.0, 0.03, -0.2])
def test_p_and_interval_agree(value):
    draw = np.random.default_rng(5)
    weights = draw.lognormal(0, 1, 12)
    change = weights * draw.normal(-0.1, 0.1, 12)
    found = ratio_difference(
        [str(i) for i in range(12)], [0.0] * 12, list(change), list(weights), resamples=999, seed=0
    )
    assert (found.p_at(value) < 0.05) == (not found.low <= value <= found.high)


def test_rows_of_one_project_do_not_count_as_independent():
    draw = np.random.default_rng(0)
    names = np.repeat(np.arange(10), 20).astype(str)
    tuned = 1 + np.repeat(draw.normal(0, 0.1, 10), 20)
    arguments = (np.ones(200), tuned, np.ones(200))
    clustered = ratio_difference(list(names), *arguments, resamples=1000, seed=0)
    naive = ratio_difference([str(i) for i in range(200)], *arguments, resamples=1000, seed=0)
    assert clustered.high - clustered.low > 3 * (naive.high - naive.low)


def test_one_project_gives_no_interval():
    found = ratio_difference(["a"] * 3, [1] * 3, [0] * 3, [1] * 3, resamples=9, seed=0)
    assert (found.low, found.high, found.p) == (-math.inf, math.inf, 1.0)


def test_a_project_without_a_labelled_token_is_no_observation():
    arguments = ([1.0, 2.0, 0.0], [2.0, 2.0, 0.0], [3, 3, 0])
    found = ratio_difference(["a", "b", "c"], *arguments, resamples=200, seed=0)
    assert found.units == 2
    assert math.isfinite(found.low)


def test_the_same_seed_gives_the_same_interval():
    arguments = (["a", "b", "c"], [1, 2, 4], [2, 2, 2], [3, 3, 3])
    first = ratio_difference(*arguments, resamples=1500, seed=5)
    cluster_inference._null.cache_clear()
    assert first == ratio_difference(*arguments, resamples=1500, seed=5)
    assert first.low != ratio_difference(*arguments, resamples=1500, seed=6).low
