import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables, multitest

from tasks.evaluation.gate import statistics
from tasks.evaluation.metrics import pass_at_k


def test_mcnemar_is_the_binomial_test_on_flips():
    base = [False] * 9 + [True] * 2 + [True] * 5 + [False] * 4
    tuned = [True] * 9 + [False] * 2 + [True] * 5 + [False] * 4
    found = statistics.mcnemar(base, tuned)
    assert found.p == pytest.approx(stats.binomtest(9, 11).pvalue)
    assert found.value == pytest.approx(7 / 20)
    # by hand: 10/22 - 3/22, z 1.96, sqrt((13/22 - (7/22)^2) / 22)
    half = 1.959964 * math.sqrt((13 / 22 - (7 / 22) ** 2) / 22)
    assert found.low == pytest.approx(7 / 22 - half, abs=1e-5)
    assert found.high == pytest.approx(7 / 22 + half, abs=1e-5)


def test_no_flip_still_has_an_interval():
    found = statistics.mcnemar([True] * 20, [True] * 20)
    assert found.p == 1
    assert found.low < -0.05 < 0.05 < found.high


def test_holm_by_hand():
    # sorted .01 .02 .04 .3 -> x4 x3 x2 x1, never falling
    assert statistics.holm([0.04, 0.01, 0.3, 0.02]) == pytest.approx([0.08, 0.04, 0.3, 0.06])


def test_holm_never_falls_and_stays_below_one():
    assert statistics.holm([0.03, 0.031, 0.9]) == pytest.approx([0.09, 0.09, 0.9])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]


def test_power_of_five_points_on_humaneval_is_low():
    assert 0.2 < statistics.mcnemar_power(164, 0.2, 0.05) < 0.3


def test_power_agrees_with_simulation():
    draw = np.random.default_rng(0)
    flips = draw.multinomial(60, [0.25, 0.05, 0.7], size=2000)
    found = np.mean([stats.binomtest(w, w + lo).pvalue <= 0.05 for w, lo, _ in flips if w + lo])
    assert statistics.mcnemar_power(60, 0.3, 0.2) == pytest.approx(found, abs=0.03)


def test_the_minimum_detectable_effect_has_the_power_it_claims():
    effect = statistics.minimum_detectable_effect(164, 0.15)
    assert effect is not None
    assert statistics.mcnemar_power(164, 0.15, effect) >= 0.8
    assert statistics.mcnemar_power(164, 0.15, effect - 0.002) < 0.8


def test_five_problems_detect_nothing():
    assert statistics.minimum_detectable_effect(5, 0.2) is None


def test_pass_at_k_is_the_share_of_draws_with_a_pass():
    assert pass_at_k.estimate(5, 2, 1) == pytest.approx(0.4)
    assert pass_at_k.estimate(5, 2, 2) == pytest.approx(1 - 3 / 10)
    assert pass_at_k.estimate(5, 0, 5) == 0
    with pytest.raises(ValueError, match="k is 6"):
        pass_at_k.estimate(5, 2, 6)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (5, 2), (14, 3), (40, 44)])
def test_mcnemar_is_that_of_statsmodels(won, lost):
    base = [False] * won + [True] * lost + [True] * 6 + [False] * 7
    tuned = [True] * won + [False] * lost + [True] * 6 + [False] * 7
    expected = contingency_tables.mcnemar([[6, lost], [won, 7]], exact=True).pvalue
    assert statistics.mcnemar(base, tuned).p == pytest.approx(min(1.0, expected))


def test_holm_is_that_of_statsmodels():
    p_values = np.random.default_rng(2).uniform(0, 0.2, 25)
    expected = multitest.multipletests(p_values, method="holm")[1]
    assert statistics.holm(list(p_values)) == pytest.approx(list(expected))
