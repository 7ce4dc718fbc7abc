"""The line of the plan that tells what the training will take."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.plan_notes import forecast as forecasts
from flows.plan_notes.forecast import forecast, step_budget
from flows.plan_notes.training_cost import tokens_to_see
from tasks.core.cache.decision import HIT, RUN
from tasks.core.models import memory_probes
from tasks.core.models.memory_estimate import GIB, LORA_BYTES
from tasks.core.settings.config import check
from tests.unit.flows.test_model_notes import OLMOE

GPU = memory_probes.Gpu("NVIDIA GeForce RTX 3080", "1.2", 10.0)
SHAPE = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "vocab_size": 32_000,
}


def session(root: Path, verdict: str = RUN, **settings: Any) -> Any:
    """What `forecast` looks at: a base that is there, tokenized rows, a training."""
    weights = root / "base" / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "config.json").write_text(json.dumps(SHAPE))
    base = SimpleNamespace(key="k", summary={})
    rows = SimpleNamespace(
        summary={
            "rows_out": 4000,
            "metrics": {"train_tokens": 900_000, "train_windows": 225, "test_tokens": 100_000},
        }
    )
    plans = [
        SimpleNamespace(
            stage=SimpleNamespace(name=name),
            decision=decision,
            manifest=manifest,
            key=None,
            parts={},
            expected_seconds=None,
        )
        for name, decision, manifest in (
            ("base", HIT, base),
            ("tokenize", HIT, rows),
            ("train", verdict, None),
        )
    ]
    return SimpleNamespace(
        config=check(settings),
        plans=plans,
        planner=SimpleNamespace(artifacts={"base": base, "tokenize": rows}),
        store=SimpleNamespace(folder=lambda stage, key: root / stage, recent=lambda stage: []),
        tokenized=rows,
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    monkeypatch.setattr(memory_probes, "find_gpu", lambda: GPU)


@pytest.mark.usefixtures("gpu")
def test_without_a_probe_it_is_an_estimate_and_says_so(tmp_path: Path) -> None:
    found = forecast(session(tmp_path, hardware={"vram_gib": 9.0}))
    assert found is not None and not found.measured
    assert found.limit_gib == 9.0
    assert 2 < found.reserved_gib <= 0.77 * 9
    assert found.seconds is not None
    assert str(found).startswith("train: about ")
    assert "of 9.0 GiB of GPU memory" in str(found)
    assert str(found).endswith("(an estimate; the run measures it first).")


@pytest.mark.usefixtures("gpu")
def test_a_probe_of_this_gpu_is_told_as_measured(tmp_path: Path) -> None:
    known = session(tmp_path)
    about = memory_probes.facts(GPU, tmp_path / "base" / "weights", known.config.train)
    memory_probes.write(
        about, 4001, memory_probes.Probe(4001, "fast", 24, 1.0, 3.0, 0.2, 9, 2000.0)
    )
    found = forecast(known)
    assert found is not None and found.measured
    assert found.kept_layers == int((memory_probes.TARGET_SHARE * 9.5 - 3.0) / 0.2)
    assert found.reserved_gib == pytest.approx(3.0 + 0.2 * found.kept_layers)
    assert found.tokens == 2000 * 4 * 250
    assert found.seconds == 1000
    assert str(found).endswith("about 16 min 40 s (measured on this NVIDIA GeForce RTX 3080).")


@pytest.mark.usefixtures("gpu")
def test_gpus_that_share_the_steps_share_the_time(tmp_path: Path) -> None:
    alone = forecast(session(tmp_path))
    shared = forecast(session(tmp_path, hardware={"gpus": 4}))
    assert alone is not None and shared is not None and alone.seconds is not None
    assert shared.seconds == alone.seconds / 4


def test_without_a_gpu_it_is_said_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_probes, "find_gpu", lambda: None)
    found = forecast(session(tmp_path, hardware={"vram_gib": 9.0}))
    assert found is not None
    assert str(found).endswith("(an estimate; there is no GPU here).")
    on_cpu = str(forecast(session(tmp_path)))  # no limit is set: it will train on the CPU
    assert "GiB of memory on" in on_cpu and "(an estimate; there is no GPU here)" in on_cpu


@pytest.mark.usefixtures("gpu")
def test_a_mixture_of_experts_is_estimated_from_what_the_base_counted(tmp_path: Path) -> None:
    known = session(tmp_path)
    (tmp_path / "base" / "weights" / "config.json").write_text('{"model_type": "olmoe"}')
    assert forecast(known) is None
    (tmp_path / "base" / "checks.json").write_text(json.dumps(OLMOE))
    small, large = forecast(known), forecast(session_with_rank(known, 64))
    assert small is not None and large is not None
    assert 5 < small.reserved_gib < 8
    trained = 64 * OLMOE["experts"]["lora_per_rank"] * LORA_BYTES / GIB
    assert large.reserved_gib - small.reserved_gib == pytest.approx(trained * 63 / 64)
    assert small.layers == 16 and small.kept_layers == 0
    assert small.seconds is not None


def session_with_rank(known: Any, rank: int) -> Any:
    train = known.config.train.model_copy(update={"expert_rank": rank})
    known.config = known.config.model_copy(update={"train": train})
    return known


@pytest.mark.usefixtures("gpu")
def test_there_is_none_where_nothing_is_trained(tmp_path: Path) -> None:
    assert forecast(session(tmp_path, verdict=HIT)) is None


@pytest.mark.usefixtures("gpu")
def test_on_the_cpu_memory_and_hours_of_the_cpu_are_told(tmp_path: Path) -> None:
    found = forecast(session(tmp_path, hardware={"device": "cpu"}))
    assert isinstance(found, forecasts.CpuForecast)
    assert found.seconds is not None and found.seconds > 3600
    fresh = session(tmp_path)
    fresh.planner.artifacts.clear()
    fresh.plans[0] = SimpleNamespace(
        stage=SimpleNamespace(name="base"), decision=RUN, manifest=None
    )
    assert forecast(fresh) is None


@pytest.mark.parametrize(
    ("train", "tokens"),
    [
        ({"batch_tokens": 10_000, "max_steps": 50}, 500_000),
        ({"batch_tokens": 10_000, "max_steps": 500, "epochs": 2}, 1_800_000),
        ({"batch_tokens": 10_000, "max_steps": None, "epochs": 0.5}, 450_000),
        ({"batch_rows": 4, "max_steps": 100}, 100_000),
    ],
)
def test_tokens_follow_from_steps_epochs_and_batch(
    train: dict[str, Any], tokens: int, tmp_path: Path
) -> None:
    known = session(tmp_path)
    config = check({"train": train})
    assert tokens_to_see(config, known.planner.artifacts["tokenize"]) == tokens


AUTO = {"max_steps": "auto", "batch_tokens": 16_000}


def test_the_plan_shows_the_arithmetic_of_auto(tmp_path: Path) -> None:
    known = session(tmp_path, train=AUTO)
    assert step_budget(known).startswith(
        "train: 169 steps, 16 of them warm-up: 900,000 tokens in 225 windows, "
    )
    assert tokens_to_see(known.config, known.planner.artifacts["tokenize"]) == 3 * 900_000
    known.plans[1].decision = RUN
    assert "follows from the tokens; for the previous data: 169 steps" in step_budget(known)
    known.plans[1].manifest = None
    known.tokenized = None
    assert step_budget(known) == (
        "train: the number of steps follows from the tokens, which tokenize counts; to see it "
        "before the training: finetune run --until tokenize."
    )
    assert tokens_to_see(known.config, None) is None


def test_there_is_no_arithmetic_without_auto_or_training(tmp_path: Path) -> None:
    assert step_budget(session(tmp_path)) == ""
    assert step_budget(session(tmp_path, verdict=HIT, train=AUTO)) == ""


def test_tokens_are_not_known_where_they_follow_from_data_that_is_not_there() -> None:
    assert tokens_to_see(check({"train": {"max_steps": None, "epochs": 1}}), None) is None
    assert tokens_to_see(check({"train": {"batch_rows": 4}}), None) is None


def test_the_forecast_is_whole_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_probes, "find_gpu", lambda: GPU)
    found = forecast(session(tmp_path))
    assert found is not None
    assert forecasts.Forecast(**json.loads(json.dumps(found.to_json()))) == found
    assert "GPU memory" in str(replace(found, limit_gib=None, seconds=None, tokens=None))
