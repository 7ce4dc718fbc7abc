"""float16 with loss scaling: equal to 32 bit, skipped steps, resume, and models that overflow."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.core.errors import PipelineError
from tasks.training import checkpoints
from tasks.training.report.metrics_log import read_metrics
from tasks.training.steppers import loss_scale
from tasks.training.steppers.autograd_stepper import AutogradStepper
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.loss_scale import GROWTH_STEPS, MAX_SKIPPED, LossScale

HALF: dict[str, Any] = {"dtype": "float16", "log_every": 1, "max_steps": 5, "batch_rows": 8}


def losses(work: Any) -> list[float]:
    return [x["loss"] for x in read_metrics(work.out / "metrics.jsonl") if "loss" in x]


def overflow_at(monkeypatch: pytest.MonkeyPatch, steps: list[int]) -> list[bytes]:
    """Make the gradients of these runs of the stepper infinite; returns the parameters by run."""
    run, seen = AutogradStepper.run, list[bytes]()

    def overflown(self: Any, windows: Any, divisor: float, seed: int) -> Tensor:
        trained = [p for p in self._model.parameters() if p.requires_grad]
        seen.append(b"".join(p.detach().numpy().tobytes() for p in trained))
        loss = run(self, windows, divisor, seed)
        if len(seen) - 1 in steps:
            trained[0].grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(AutogradStepper, "run", overflown)
    return seen


def test_float16_trains_as_32_bit_does(run_stage: Any) -> None:
    changes = HALF | {"lora_dropout": 0.0, "loss_average": "rows"}
    summary, half = run_stage("half", **changes)
    _, wide = run_stage("wide", **changes | {"dtype": "float32", "fast_path": "off"})
    assert losses(half) == pytest.approx(losses(wide), abs=5e-3)
    assert summary.counts == {}
    facts = json.loads((half.out / "training.json").read_text())
    assert (facts["dtype"], facts["step_path"], facts["overflowed"]) == ("float16", "plain", 0)


def test_a_scaled_gradient_is_clipped_to_the_same_values() -> None:
    model = nn.Linear(3, 2, bias=False)
    flat = FlatParameters(model)
    found = []
    for scale in (1.0, 2.0**16):
        flat.gradient.copy_(torch.arange(6.0) * scale)
        norm = flat.clip(0.5, scale)
        found.append((float(norm), flat.gradient.tolist()))
    assert found[0] == found[1]


def test_gradients_that_overflow_skip_the_step_and_halve_the_scale(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = overflow_at(monkeypatch, [2])
    summary, work = run_stage(**HALF)
    assert seen[3] == seen[2]
    assert len(set(seen)) == 3  # the first step of the warm-up changes nothing
    lines = [x for x in read_metrics(work.out / "metrics.jsonl") if "loss" in x]
    assert [x["loss_scale"] for x in lines] == [2.0**16] * 2 + [2.0**15] * 3
    assert [x["skipped_steps"] for x in lines] == [0, 0, 1, 1, 1]
    assert ["grad_norm" in x for x in lines] == [True, True, False, True, True]
    assert summary.counts == {"steps skipped, beyond the range of float16": 1}


def test_a_resumed_run_goes_on_with_its_scale(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = HALF | {"max_steps": 4, "checkpoint_every": 2}
    name = "adapter/adapter_model.safetensors"
    with monkeypatch.context() as patched:
        overflow_at(patched, [1])
        _, whole = run_stage("whole", **changes)
    with monkeypatch.context() as patched:
        overflow_at(patched, [1])
        save = checkpoints.save

        def stop(*arguments: Any) -> None:
            save(*arguments)
            raise KeyboardInterrupt

        patched.setattr(checkpoints, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_stage("cut", **changes)
    _, resumed = run_stage("cut", **changes)
    assert (resumed.out / name).read_bytes() == (whole.out / name).read_bytes()
    assert read_metrics(resumed.out / "metrics.jsonl")[-2]["loss_scale"] == 2.0**15


def test_steps_skipped_in_a_row_end_the_training(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale, "MAX_SKIPPED", 3)
    overflow_at(monkeypatch, [2, 3, 4])
    with pytest.raises(PipelineError, match="3 steps in a row, the last of them step 5, had grad"):
        run_stage(**HALF)


def test_the_scale_doubles_after_many_steps_and_counts_skips_in_a_row() -> None:
    scale = LossScale()
    for _ in range(GROWTH_STEPS):
        scale.passed()
    assert scale == LossScale(2.0**17, 0, 0)
    for step in range(MAX_SKIPPED - 1):
        scale.failed(step, in_forward=False)
    scale.passed()
    assert scale.skipped == 0
    scale.failed(99, in_forward=True)  # a rare row, late in the training
    assert scale == LossScale(2.0 ** (18 - MAX_SKIPPED), 0, 1)


@pytest.mark.parametrize("has_validation", [True, False])
def test_a_model_whose_activations_overflow_float16_ends_in_its_first_step(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch, has_validation: bool
) -> None:
    from tasks.training import load_with_lora, process

    load = load_with_lora.load_model

    def load_large(*arguments: Any, **named: Any) -> Any:
        model = load(*arguments, **named)
        for linear in (model.model.layers[1].mlp.up_proj, model.model.layers[1].mlp.down_proj):
            linear.weight.data.mul_(1e4)
        return model

    monkeypatch.setattr(load_with_lora, "load_model", load_large)
    if not has_validation:
        monkeypatch.setattr(process, "validate", lambda *_, **__: None)
    where = "the validation loss before the first step" if has_validation else "the loss of step 1"
    with pytest.raises(PipelineError, match=f"{where} is not finite in float16: .* exceed 65,504"):
        run_stage(**HALF)
    run_stage("wide", **HALF | {"dtype": "float32", "max_steps": 3})  # the remedy
