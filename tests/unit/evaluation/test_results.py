import json
from dataclasses import replace

import pytest

from tasks.evaluation import results
from tasks.evaluation.metrics import summary
from tests.unit.evaluation.examples import evaluation, problems


def test_metrics_are_sums_over_tokens_not_means_of_rows():
    rows = (
        results.RowResult("a", "p", 10, 30, 10.0, 5.0, 4, 8),
        results.RowResult("b", "q", 90, 270, 270.0, 180.0, 9, 45),
    )
    found = summary.metrics(results.Evaluation((results.RowSet("held-out", rows),)))
    assert found["rows"]["held-out"]["base"]["loss"] == 2.8  # 280 / 100; the mean of rows is 2
    assert found["rows"]["held-out"]["tuned"]["token_accuracy"] == 0.53
    assert found["rows"]["held-out"]["base"]["bits_per_byte"] == round(2.8 / 0.6931471806 / 3, 6)


def test_metrics_hold_no_clock():
    assert "seconds" not in json.dumps(summary.metrics(evaluation(tried=problems(1, 1, 1, 1))))


def test_a_failure_of_the_sandbox_is_charged_to_no_model():
    judged = problems(won=1, lost=0, both=1, none=2)
    broken = results.ProblemResult(
        "humaneval",
        "HumanEval/99",
        "prompt",
        "",
        (results.Attempt("", 0, True, "pass"),),
        (results.Attempt("", 0, True, results.INFRA),),
    )
    found = summary.metrics(evaluation(tried=(*judged, broken)))["problems"]["humaneval (prompt)"]
    assert (found["problems"], found["infra"]) == (5, 1)
    assert (found["base"]["pass@1"], found["tuned"]["pass@1"]) == (0.25, 0.5)


def test_pass_at_ten_needs_ten_attempts():
    attempts = tuple(results.Attempt("", 1, True, "pass" if i < 3 else "wrong") for i in range(10))
    tried = (results.ProblemResult("own", "1", "prompt", "", attempts, attempts),)
    measured = replace(evaluation(tried=tried), settings={"pass_at": [1, 2, 10, 100]})
    found = summary.metrics(measured)["problems"]["own (prompt)"]["base"]
    assert found["pass@1"] == 0.3
    assert found["pass@2"] == pytest.approx(1 - (7 * 6) / (10 * 9))
    assert found["pass@10"] == 1.0
    assert "pass@100" not in found
