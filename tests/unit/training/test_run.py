"""The whole stage: its files, and that it learns."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tasks.core import progress
from tasks.core.errors import PipelineError
from tasks.training.report import trackers
from tasks.training.report.metrics_log import read_metrics


def test_training_learns_and_writes_its_artifact(run_stage: Any) -> None:
    summary, work = run_stage(max_steps=40, eval_every=20)
    assert sorted(p.name for p in work.out.iterdir()) == [
        "adapter",
        "loss.png",
        "metrics.jsonl",
        "steps.json",
        "training.json",
    ]
    facts = json.loads((work.out / "training.json").read_text())
    assert facts["step"] == 40
    assert facts["optimizer"] == "adamw"
    assert facts["learning_rate"] == 1e-2
    assert facts["last_loss"] < facts["first_loss"] - 1.5
    assert [v["step"] for v in facts["validation"]] == [0, 20, 40]
    before, after = facts["validation"][0], facts["validation"][-1]
    assert after["loss"] < before["loss"] - 0.5
    assert summary.metrics["validation_loss"] == after["loss"]
    steps = [line["step"] for line in read_metrics(work.out / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(2, 41, 2))


def test_the_adapter_loads_with_plain_peft_and_holds_no_path(
    run_stage: Any, bases: dict[str, Path]
) -> None:
    _, work = run_stage(max_steps=3)
    text = (work.out / "adapter" / "adapter_config.json").read_text()
    assert str(bases["llama"]) not in text
    assert json.loads(text)["target_modules"] == sorted(json.loads(text)["target_modules"])
    assert {p.name for p in (work.out / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base = AutoModelForCausalLM.from_pretrained(bases["llama"])
    ids = torch.arange(9)[None]
    plain = base(ids).logits
    tuned = PeftModel.from_pretrained(base, work.out / "adapter")(ids).logits
    assert not torch.allclose(plain, tuned, atol=1e-4)


def test_the_adapter_is_the_same_bytes_every_time(run_stage: Any) -> None:
    files = []
    for name in ("a", "b"):
        _, work = run_stage(name, max_steps=4, lora_dropout=0.3)
        files.append({p.name: p.read_bytes() for p in (work.out / "adapter").iterdir()})
    assert files[0] == files[1]


def test_nf4_trains_on_the_cpu(run_stage: Any) -> None:
    _, work = run_stage(kind="stablelm", quantization="nf4", max_steps=10)
    losses = [v for v in read_metrics(work.out / "metrics.jsonl") if "loss" in v]
    assert losses[-1]["loss"] < losses[0]["loss"]


def test_two_hundred_steps_of_both_paths_give_one_curve(run_stage: Any) -> None:
    curves = []
    changes = {"lora_dropout": 0.0, "max_steps": 200, "learning_rate": 3e-3, "log_every": 10}
    for path in ("auto", "off"):
        _, work = run_stage(path, fast_path=path, **changes)
        assert json.loads((work.out / "training.json").read_text())["step_path"] == (
            "fast" if path == "auto" else "plain"
        )
        lines = read_metrics(work.out / "metrics.jsonl")
        curves.append([line["loss"] for line in lines if "loss" in line])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert curves[0][-1] < curves[0][0] - 2


def test_the_loss_averaged_over_rows_is_another_training_alike_on_both_paths(
    run_stage: Any,
) -> None:
    curves = []
    for path, average in (("auto", "rows"), ("off", "rows"), ("auto", "tokens")):
        changes = {"lora_dropout": 0.0, "max_steps": 4, "log_every": 1}
        _, work = run_stage(f"{path}-{average}", fast_path=path, loss_average=average, **changes)
        lines = read_metrics(work.out / "metrics.jsonl")
        curves.append([line["loss"] for line in lines if "loss" in line])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert curves[0] != pytest.approx(curves[2], rel=1e-3)


def test_progress_shows_loss_and_speed(run_stage: Any) -> None:
    notes: list[tuple[str, float, float | None, str]] = []

    class Sink:
        def update(self, *what: Any) -> None:
            notes.append(what)

        def message(self, text: str) -> None: ...

    with progress.sink(Sink()):
        run_stage(max_steps=4)
    label, done, total, note = notes[-1]
    assert (label, done, total) == ("train", 4, 4)
    assert note.startswith("loss ") and note.endswith(" tokens/s")


def test_all_labels_masked_stops_the_run(run_stage: Any) -> None:
    with pytest.raises(PipelineError, match="all labels are masked: 0 of"):
        run_stage(masked=True)


def test_a_loss_that_is_not_finite_stops_the_run(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.training.steppers.autograd_stepper import AutogradStepper

    monkeypatch.setattr(AutogradStepper, "run", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(PipelineError, match="diverged at step 2"):
        run_stage(fast_path="off")


def test_the_last_good_checkpoint_stays_where_training_diverges(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tasks.training.steppers.autograd_stepper import AutogradStepper

    run, calls = AutogradStepper.run, []

    def diverge(self: Any, *what: Any) -> Any:
        calls.append(1)
        return run(self, *what) * (float("nan") if len(calls) > 5 else 1.0)

    monkeypatch.setattr(AutogradStepper, "run", diverge)
    with pytest.raises(PipelineError, match="diverged at step 6"):
        run_stage("bad", fast_path="off", checkpoint_every=2)
    kept = sorted(p.name for p in (tmp_path / "bad/scratch/checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000004"]
    assert not (tmp_path / "bad/out/adapter").exists()


def test_dora_trains_with_the_autograd_stepper_and_its_magnitudes_are_saved(run_stage: Any) -> None:
    _, work = run_stage(max_steps=3, use_dora=True)
    assert json.loads((work.out / "training.json").read_text())["step_path"] == "plain"
    tensors = load_file(work.out / "adapter" / "adapter_model.safetensors")
    assert sum("magnitude" in name for name in tensors) == 3 * 7


def test_more_layers_than_there_are_is_the_users_error(run_stage: Any) -> None:
    with pytest.raises(PipelineError, match="last_layers is 9 and the base model has 3"):
        run_stage(last_layers=9)


def test_extra_modules_are_saved_with_the_adapter_and_load_with_plain_peft(
    run_stage: Any, bases: dict[str, Path]
) -> None:
    _, work = run_stage(max_steps=3, extra_modules=["embed_tokens"])
    facts = json.loads((work.out / "training.json").read_text())
    assert facts["step_path"] == "plain"
    base = AutoModelForCausalLM.from_pretrained(bases["llama"])
    before = base.model.embed_tokens.weight.detach().clone()
    tuned = PeftModel.from_pretrained(base, work.out / "adapter")
    after = tuned.get_input_embeddings().modules_to_save["default"].weight
    assert float((after - before).abs().max()) > 1e-4


def test_a_tracker_that_is_not_installed_is_an_error_before_training(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", ("no_such_module", lambda _: None))
    with pytest.raises(PipelineError, match="names wandb, which is not installed") as error:
        run_stage(track_with=["wandb"])
    assert "pip install 'finetune-pipeline[wandb]'" in error.value.remedy


def test_auto_trains_by_the_size_of_the_data_and_shows_the_arithmetic(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("tasks.training.run.say", said.append)
    _, work = run_stage(max_steps="auto", batch_tokens=80, epochs=2, warmup_steps=2)
    facts = json.loads((work.out / "training.json").read_text())
    assert facts["step"] == facts["auto"]["steps"] == 30
    assert "in 15 windows, 2 passes, 1 window per step" in said[0]
