"""The autograd stepper: a step has one result, however its windows are cut."""

from typing import Any

import pytest
import torch

from tasks.core.models.packed_forward import WindowTensors, window_tensors
from tasks.training.batches import trained_rows
from tasks.training.lora import add_lora
from tasks.training.steppers.autograd_stepper import AutogradStepper, set_checkpointing
from tasks.training.steppers.flat_parameters import FlatParameters
from tests.unit.training.conftest import make_window, tiny

CPU = torch.device("cpu")


def tuned(kind: str = "llama", dropout: float = 0.0) -> tuple[Any, FlatParameters]:
    model = add_lora(tiny(kind), rank=4, alpha=16, dropout=dropout)
    flat = FlatParameters(model)
    with torch.no_grad():  # B starts at zero, which would hide A's gradient
        flat.values.add_(0.05 * torch.randn(flat.values.shape, generator=torch.manual_seed(3)))
    return model, flat


def gradient(
    kind: str, windows: list[WindowTensors], *, kept: int = 99, dropout: float = 0.0
) -> tuple[float, torch.Tensor]:
    model, flat = tuned(kind, dropout)
    trained = sum(w.trained_tokens for w in windows)
    total = AutogradStepper(model, kept).run(windows, trained, seed=5)
    return float(total), flat.gradient.clone()


def tensors(*lengths: int, seed: int = 0) -> WindowTensors:
    return window_tensors(make_window(*lengths, seed=seed), CPU)


def cut(whole: tuple[int, ...]) -> list[WindowTensors]:
    """The samples of `tensors(*whole)`, each alone."""
    window, parts = make_window(*whole), []
    for i in range(len(whole)):
        span = slice(window.cu_seqlens[i], window.cu_seqlens[i + 1])
        part = make_window(whole[i])
        part.input_ids[:] = window.input_ids[span]
        part.labels[:] = window.labels[span]
        parts.append(window_tensors(part, CPU))
    return parts


@pytest.mark.parametrize("kind", ["llama", "stablelm"])
def test_packed_is_unpacked_and_accumulation_is_one_big_batch(kind: str) -> None:
    lengths = (7, 3, 12)
    packed, together = gradient(kind, [tensors(*lengths)])
    alone, summed = gradient(kind, cut(lengths))
    assert packed == pytest.approx(alone, rel=1e-5)
    torch.testing.assert_close(together, summed, rtol=1e-4, atol=1e-6)


def test_every_token_weighs_the_same_not_every_window() -> None:
    short, long = tensors(4), tensors(20, seed=1)
    _, both = gradient("llama", [short, long])
    _, one = gradient("llama", [short])
    _, other = gradient("llama", [long])
    expected = (one * short.trained_tokens + other * long.trained_tokens) / (
        short.trained_tokens + long.trained_tokens
    )
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-6)


def test_with_row_weights_the_loss_is_the_mean_of_the_means_of_the_rows() -> None:
    lengths = (4, 20)
    window = make_window(*lengths)
    trained, rows = window.trained_tokens, trained_rows([window])
    weighted = window_tensors(window, CPU, row_weight=trained / rows)
    alone = [gradient("llama", [part]) for part in cut(lengths)]
    loss, found = gradient("llama", [weighted])
    means = [
        total / part.trained_tokens for (total, _), part in zip(alone, cut(lengths), strict=True)
    ]
    assert loss / trained == pytest.approx(sum(means) / 2, rel=1e-5)
    torch.testing.assert_close(found, (alone[0][1] + alone[1][1]) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "stablelm"])
def test_recomputing_activations_changes_nothing_with_dropout_on(kind: str) -> None:
    _, kept = gradient(kind, [tensors(9, 5)], kept=99, dropout=0.3)
    _, recomputed = gradient(kind, [tensors(9, 5)], kept=0, dropout=0.3)
    torch.testing.assert_close(kept, recomputed, rtol=1e-5, atol=1e-7)


def test_so_many_layers_keep_their_activations() -> None:
    model, _ = tuned()
    assert set_checkpointing(model, 1) == 1
    layers = model.get_base_model().model.layers
    assert [layer.gradient_checkpointing for layer in layers] == [True, True, False]
    assert set_checkpointing(model, 99) == 3


def test_the_base_stays_frozen_and_only_lora_is_trained() -> None:
    model, flat = tuned()
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    assert all("lora_" in name for name in flat.names)
    optimizer = torch.optim.AdamW([flat.values], lr=0.1)
    AutogradStepper(model, 99).run([tensors(9)], 7, seed=0)
    optimizer.step()
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(p.requires_grad for n, p in after.items() if "lora_" not in n)
    assert all(p.grad is None for n, p in after.items() if "lora_" not in n)


def test_parameters_and_gradients_are_views_of_the_flat_tensors() -> None:
    model, flat = tuned()
    AutogradStepper(model, 99).run([tensors(9)], 7, seed=0)
    named = dict(model.named_parameters())
    for name, (value, slope) in flat.views.items():
        assert named[name].data_ptr() == value.data_ptr()
        assert named[name].grad is not None
        assert named[name].grad.data_ptr() == slope.data_ptr()
    assert float(flat.gradient.abs().sum()) > 0


def test_clipping_scales_to_the_norm_and_zero_never_clips() -> None:
    _, flat = tuned()
    flat.gradient.fill_(2.0)
    norm = float(flat.clip(0.0))
    assert float(flat.gradient[0]) == 2.0
    assert float(flat.clip(1.0)) == norm
    assert float(torch.linalg.vector_norm(flat.gradient)) == pytest.approx(1.0, rel=1e-4)
