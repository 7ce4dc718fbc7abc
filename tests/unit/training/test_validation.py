"""Held-out loss and token accuracy: shifted, and without all logits in memory."""

from pathlib import Path

import pytest
import torch

from tasks.core.models import chunked_loss
from tasks.core.models.loading import load_model
from tasks.core.models.packed_forward import window_tensors
from tasks.training.lora import add_lora
from tasks.training.steppers.autograd_stepper import AutogradStepper
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.validation import validate
from tests.unit.training.conftest import make_window, tiny

CPU = torch.device("cpu")


def test_token_accuracy_compares_a_logit_with_the_next_token() -> None:
    model, window = tiny("llama").eval(), make_window(9, 6)
    result = validate(AutogradStepper(model, 99).measure, [window], CPU)
    assert result is not None
    right = total = 0
    for start, stop in ((0, 9), (9, 15)):
        ids = torch.from_numpy(window.input_ids[start:stop])
        guess = model(ids[None]).logits[0].argmax(-1)
        right += int((guess[1:-1] == ids[2:]).sum())  # 2 prompt tokens carry no label
        total += len(ids) - 2
    assert result.tokens == total
    assert result.token_accuracy == pytest.approx(right / total)


def test_validation_keeps_at_most_a_chunk_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    linear = chunked_loss.linear

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        result = linear(*arguments)
        sizes.append(result.shape[0])
        return result

    monkeypatch.setattr(chunked_loss, "linear", watched)
    windows = [make_window(60, seed=s) for s in range(20)]
    validate(AutogradStepper(tiny("llama"), 99).measure, windows, CPU)
    assert sum(sizes) == 20 * 58
    assert max(sizes) <= chunked_loss.CHUNK_TOKENS


def test_validation_is_without_dropout_and_leaves_the_model_training() -> None:
    model = add_lora(tiny("llama"), rank=4, alpha=16, dropout=0.9).train()
    measure = AutogradStepper(model, 99).measure
    first = validate(measure, [make_window(20)], CPU)
    assert first == validate(measure, [make_window(20)], CPU)
    assert model.training


def test_validation_stops_at_its_limit_and_is_none_without_labels() -> None:
    windows = [make_window(10, seed=s) for s in range(5)]
    result = validate(AutogradStepper(tiny("llama"), 99).measure, windows, CPU, limit=9)
    assert result is not None and result.tokens == 16
    masked = [make_window(6, prompt=6)]
    assert validate(AutogradStepper(tiny("llama"), 99).measure, masked, CPU) is None


def test_a_validation_before_training_leaves_4_bit_gradients_as_they_are(
    bases: dict[str, Path],
) -> None:
    window = window_tensors(make_window(20), CPU)
    gradients = []
    for first in (False, True):
        base = load_model(bases["llama"], quantization="nf4", device="cpu", trainable=True)
        model = add_lora(base, rank=4, alpha=16, dropout=0.0)
        flat = FlatParameters(model)
        with torch.no_grad():
            flat.values.add_(0.05)
        stepper = AutogradStepper(model, 99)
        if first:
            stepper.measure(window)
        stepper.run([window], window.trained_tokens, seed=0)
        gradients.append(flat.gradient)
    assert torch.equal(*gradients)
