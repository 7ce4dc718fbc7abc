"""Duration of a training by its steps and tokens, and where an interrupted one resumes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.plan_notes import forecast, training_cost
from tasks.core.cache.decision import HIT, RUN
from tasks.core.models import memory_probes
from tasks.core.models.memory_probes import Gpu
from tasks.core.settings.config import check

BASE = {"base.weights": "b"}
DATA: Any = SimpleNamespace(
    summary={"rows_out": 100, "metrics": {"train_tokens": 50_000, "train_windows": 50}}
)


def config(**train: Any) -> Any:
    return check({"train": {"batch_tokens": 1000, **train}, "hardware": {"device": "cpu"}})


def plan(decision: str = RUN, inputs: Any = None, expected: float | None = 52.0) -> Any:
    from tasks.core.cache.decision import StagePlan

    stage: Any = SimpleNamespace(name="train")
    parts = {"inputs": inputs or BASE}
    return StagePlan(stage, decision, key="0" * 64, parts=parts, expected_seconds=expected)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """A store with one training of 40 steps of 1,000 tokens: 40 s of steps, 12 s of the rest."""
    folder = tmp_path / "train/made"
    folder.mkdir(parents=True)
    facts = {"tokens_per_s": 1000.0, "tokens": 40_000, "device": "cpu"}
    (folder / "training.json").write_text(json.dumps(facts))
    made = SimpleNamespace(
        key="made", parts={"inputs": BASE}, seconds=52.0, made={"peak_rss_gib": 3.3}
    )
    return SimpleNamespace(
        root=tmp_path, recent=lambda stage: [made], folder=lambda stage, key: tmp_path / stage / key
    )


def seconds(store: Any, settings: Any, **fields: Any) -> float | None:
    (found,) = training_cost.with_training_cost(settings, store, [plan(**fields)], DATA)
    return found.expected_seconds


def test_600_steps_cost_fifteen_times_the_steps_of_40_and_the_same_start(store: Any) -> None:
    assert seconds(store, config(max_steps=40)) == pytest.approx(52)
    assert seconds(store, config(max_steps=600)) == pytest.approx(612)


def test_another_base_gives_no_speed(store: Any) -> None:
    assert seconds(store, config(max_steps=600), inputs={"base.weights": "c"}) == 52.0


@pytest.mark.parametrize(("trained_on", "expected"), [("RTX 3080", 612), ("cpu", 52)])
def test_a_training_on_this_gpu_gives_the_speed_and_one_on_another_device_does_not(
    store: Any, monkeypatch: pytest.MonkeyPatch, trained_on: str, expected: float
) -> None:
    facts = {"tokens_per_s": 1000.0, "tokens": 40_000, "device": trained_on}
    (store.root / "train/made/training.json").write_text(json.dumps(facts))
    monkeypatch.setattr(memory_probes, "find_gpu", lambda: Gpu("RTX 3080", "", 10.0))
    on_gpu = check(
        {"train": {"batch_tokens": 1000, "max_steps": 600}, "hardware": {"device": "auto"}}
    )
    assert seconds(store, on_gpu) == pytest.approx(expected)


def test_an_interrupted_training_costs_only_the_steps_that_are_left(store: Any) -> None:
    checkpoints = store.root / ".work" / f"train-{'0' * 12}" / "scratch/checkpoints"
    for name in ("step-00000100", "step-00000300", ".step-00000340.partial"):
        (checkpoints / name).mkdir(parents=True)
    assert seconds(store, config(max_steps=600)) == pytest.approx(12 + 300)
    session: Any = SimpleNamespace(
        config=config(max_steps=600), store=store, plans=[plan()], tokenized=DATA
    )
    assert forecast.resume_line(session) == "train resumes at step 300 of 600."


def test_a_training_without_a_checkpoint_starts_from_the_beginning(store: Any) -> None:
    assert training_cost.resume_step(store, plan()) is None
    assert training_cost.resume_step(store, plan(HIT)) is None


def test_epochs_bound_the_steps() -> None:
    assert training_cost.total_steps(config(max_steps=2000, epochs=2), DATA) == 100
