"""Metrics and problem sets: one entry is enough for summary, gate and report."""

import pytest

from tasks.evaluation.gate import comparison, verdict
from tasks.evaluation.metrics import registry, summary
from tasks.evaluation.metrics.protocol import SHARE, RowMetric
from tasks.evaluation.problems.humaneval import HUMANEVAL
from tasks.evaluation.problems.registry import PROBLEM_SETS, set_of
from tasks.evaluation.problems.user_tests import USER_TESTS
from tasks.evaluation.report import page
from tasks.evaluation.report.other_stages import OtherStages
from tests.unit.evaluation.examples import evaluation

ERRORS = RowMetric(
    name="token errors",
    key="token_errors",
    scale=SHARE,
    lower_is_better=True,
    is_guarded=True,
    value=lambda sums: 1 - sums.correct / sums.tokens,
    terms=lambda row: (row.tokens - row.base_correct, row.tokens - row.tuned_correct),
)


def test_names_and_keys_of_metrics_and_suites_are_unique() -> None:
    metrics = [*registry.ROW_METRICS, *registry.PROBLEM_METRICS]
    assert len({m.name for m in metrics}) == len({m.key for m in metrics}) == len(metrics)
    assert len({found.suite for found in PROBLEM_SETS}) == len(PROBLEM_SETS)


def test_a_metric_in_the_registry_is_in_summary_gate_and_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (registry, summary, comparison, page):
        monkeypatch.setattr(module, "ROW_METRICS", (*registry.ROW_METRICS[:4], ERRORS))
    found = evaluation(held_out=0.3)
    numbers = summary.metrics(found)["rows"]["held-out"]["base"]
    assert numbers["token_errors"] == pytest.approx(1 - numbers["token_accuracy"], abs=1e-6)
    gate = verdict.decide(found, resamples=200)
    (compared,) = (c for c in gate.comparisons if (c.name, c.on) == (ERRORS.name, "held-out"))
    assert (compared.outcome, compared.breached, compared.margin) == ("worse", True, 0.03)
    assert any(reason.startswith("Token errors on held-out is worse") for reason in gate.reasons)
    assert "Token errors" in page.html(found, gate, OtherStages())


def test_a_suite_that_no_set_names_is_the_user_s() -> None:
    assert set_of("humaneval") is HUMANEVAL
    assert set_of("team-tests") is USER_TESTS
