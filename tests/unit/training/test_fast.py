"""The fast path gives what transformers and peft give: loss and every LoRA gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tasks.core.modeling import load_model, window_tensors
from tasks.training.fast import FastStepper
from tasks.training.fast_model import parameter_order
from tasks.training.flat import FlatParameters
from tasks.training.lora import add_lora
from tasks.training.plain import PlainStepper
from tests.unit.training.conftest import SHAPE, make_window, tiny

CPU = torch.device("cpu")
WINDOWS = ((7, 3, 12), (20,))


def base(kind: str) -> Any:
    if kind == "qwen2":  # biases on q, k and v
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2, head_dim=16))
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.q_proj.bias)
        return model
    return tiny(kind)


def prepare(model: Any, **lora: Any) -> tuple[Any, FlatParameters]:
    model = add_lora(model, **{"rank": 4, "alpha": 16, "dropout": 0.0} | lora)
    flat = FlatParameters(model, parameter_order)
    with torch.no_grad():
        flat.values.add_(0.05 * torch.randn(flat.values.shape, generator=torch.manual_seed(3)))
    return model, flat


def both(model: Any, flat: FlatParameters, **fast: Any) -> None:
    """Assert that the two paths agree on loss and on every gradient."""
    windows = [window_tensors(make_window(*n, seed=i), CPU) for i, n in enumerate(WINDOWS)]
    trained = sum(w.trained_tokens for w in windows)
    expected_loss = PlainStepper(model, 99).run(windows, trained, seed=1)
    expected = flat.gradient.clone()
    assert float(expected.abs().max()) > 1e-4
    flat.clear()
    loss = FastStepper(model, flat, max_tokens=22, **fast).run(windows, trained, seed=1)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    for name, (_, gradient) in flat.views.items():
        at = flat.places[name]
        wanted = expected[at : at + gradient.numel()].view_as(gradient)
        error = torch.linalg.vector_norm(gradient - wanted)
        assert float(error) <= 1e-5 * max(1e-3, float(torch.linalg.vector_norm(wanted))), name


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("kind", ["llama", "stablelm", "qwen2"])
def test_loss_and_gradients_are_those_of_the_plain_path(kind: str, kept: int) -> None:
    both(*prepare(base(kind)), kept_layers=kept)


@pytest.mark.parametrize(
    "lora",
    [
        {"targets": ("q_proj", "v_proj")},
        {"targets": ("gate_proj", "down_proj")},
        {"last_layers": 1},
        {"use_rslora": True},
        {"rank": 16},
    ],
    ids=str,
)
def test_any_choice_of_lora_gives_the_plain_gradients(lora: dict[str, Any]) -> None:
    both(*prepare(base("stablelm"), **lora))


def test_an_mlp_in_chunks_gives_the_plain_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training.fast.MLP_CHUNK", 8)
    both(*prepare(base("llama")), kept_layers=1)


def test_a_head_in_chunks_gives_the_plain_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training.fast.HEAD_VALUES", 96 * 5)
    both(*prepare(base("llama")))


def test_a_4_bit_base_gives_the_plain_gradients(bases: dict[str, Path]) -> None:
    model = load_model(bases["stablelm"], device="cpu", dtype="float32", trainable=True)
    both(*prepare(model))
