"""The fused stepper gives the loss and every LoRA gradient of transformers and PEFT."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tasks.core import progress
from tasks.core.models.loading import load_model
from tasks.core.models.packed_forward import window_tensors
from tasks.training.fast.buffers import allocate, fixed_bytes, kept_bytes, shared_bytes
from tasks.training.fast.graphs import SMALLEST, bucket, padded
from tasks.training.fast.model.groups import parameter_order
from tasks.training.fast.model.weights import Unsupported
from tasks.training.fast.ops.dropout import NO_DROPOUT, hash_bits, make_dropout, mix
from tasks.training.fast.ops.torch_weights import rotate
from tasks.training.fast.step import FastStepper
from tasks.training.lora import add_lora
from tasks.training.steppers.autograd_stepper import AutogradStepper
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.pick_stepper import pick_stepper
from tasks.training.steppers.stepper import window_seed
from tests.unit.training.conftest import FAMILIES, SHAPE, make_window, tiny

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


def both(model: Any, flat: FlatParameters, row_weight: float | None = None, **fast: Any) -> None:
    """Assert that both steppers agree on the loss and on every gradient."""
    windows = [
        window_tensors(make_window(*n, seed=i), CPU, row_weight) for i, n in enumerate(WINDOWS)
    ]
    trained = sum(w.trained_tokens for w in windows)
    expected_loss = AutogradStepper(model, 99).run(windows, trained, seed=1)
    expected = flat.gradient.clone()
    assert float(expected.abs().max()) > 1e-4
    flat.clear()
    loss = FastStepper(model, flat, max_tokens=22, **fast).run(windows, trained, seed=1)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    least = float(torch.linalg.vector_norm(expected)) / 100  # smaller ones are mostly rounding
    for name, (_, gradient) in flat.views.items():
        at = flat.offsets[name]
        wanted = expected[at : at + gradient.numel()].view_as(gradient)
        error = torch.linalg.vector_norm(gradient - wanted)
        assert float(error) <= 1e-5 * max(least, float(torch.linalg.vector_norm(wanted))), name


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("kind", list(FAMILIES))
def test_every_family_of_the_table_has_the_autograd_gradients(kind: str, kept: int) -> None:
    both(*prepare(base(kind)), kept_layers=kept)


@pytest.mark.parametrize("kind", ["llama", "stablelm"])
def test_rows_that_weigh_the_same_have_the_autograd_gradients(kind: str) -> None:
    both(*prepare(base(kind)), row_weight=11.5)


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_bytes_of_a_layer_are_known_before(kind: str) -> None:
    model, flat = prepare(base(kind))
    stepper = FastStepper(model, flat, max_tokens=22, kept_layers=1)
    parts = stepper.parts
    saved = allocate(parts, 22, 1, CPU, offload=False).saved[1]
    tensors = [value for value in vars(saved).values() if isinstance(value, torch.Tensor)]
    assert shared_bytes(parts, 22) == sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("kept", [0, 3])
@pytest.mark.parametrize(
    ("kind", "lora"), [("llama", {}), ("llama", {"last_layers": 1}), ("olmo2", {"last_layers": 2})]
)
def test_offloaded_activations_give_the_autograd_gradients(
    kind: str, lora: dict[str, Any], kept: int
) -> None:
    both(*prepare(base(kind), **lora), kept_layers=kept, offload=True)


def test_offloaded_activations_take_no_memory_on_the_device() -> None:
    model, flat = prepare(base("llama"))
    parts = FastStepper(model, flat, max_tokens=8).parts
    a_layer = 300 * SHAPE["hidden_size"] * parts.head.element_size()
    saved = SHAPE["num_hidden_layers"] + 1 - 2  # two buffers alternate
    assert fixed_bytes(parts, 300) - fixed_bytes(parts, 300, offload=True) == saved * a_layer


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("kind", ["llama", "stablelm", "qwen2"])
def test_loss_and_gradients_are_those_of_the_autograd_stepper(kind: str, kept: int) -> None:
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
def test_any_choice_of_lora_gives_the_autograd_gradients(lora: dict[str, Any]) -> None:
    both(*prepare(base("stablelm"), **lora))


def test_an_mlp_in_chunks_gives_the_autograd_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training.fast.buffers.MLP_CHUNK", 8)
    both(*prepare(base("llama")), kept_layers=1)


def test_a_head_in_chunks_gives_the_autograd_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training.fast.buffers.HEAD_VALUES", 96 * 5)
    both(*prepare(base("llama")))


def test_a_4_bit_base_gives_the_autograd_gradients(bases: dict[str, Path]) -> None:
    model = load_model(bases["stablelm"], device="cpu", dtype="float32", trainable=True)
    both(*prepare(model))


class FixedMask(torch.nn.Module):
    """Replaces a LoRA layer's dropout and drops what the fused stepper drops."""

    def __init__(self, member: int, members: int, rate: float, seed: int) -> None:
        super().__init__()
        self.member, self.drop = member, make_dropout(rate, members, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bits = hash_bits(x.shape[-2], x.shape[-1], self.drop.seed, x.device)
        own = bits >> self.member * self.drop.bits & 2**self.drop.bits - 1
        return x * (own >= self.drop.threshold) * self.drop.keep_scale


@pytest.mark.parametrize("kept", [0, 3])
def test_dropout_gives_the_autograd_gradients_of_the_same_masks(kept: int) -> None:
    model, flat = prepare(base("stablelm"), dropout=0.2)
    window = window_tensors(make_window(7, 12), CPU)
    seed = mix(window_seed(1, 0))
    groups = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
    for number, layer in enumerate(model.get_base_model().model.layers):
        for kind, names in enumerate(groups):
            for member, name in enumerate(names):
                parent = layer.self_attn if kind < 2 else layer.mlp
                module = getattr(parent, name)
                mask = FixedMask(member, len(names), 0.2, mix(seed, number * 4 + kind, 0))
                module.lora_dropout["default"] = mask
    expected_loss = AutogradStepper(model, 99).run([window], window.trained_tokens, seed=1)
    expected = flat.gradient.clone()
    flat.clear()
    loss = FastStepper(model, flat, max_tokens=19, kept_layers=kept).run(
        [window], window.trained_tokens, seed=1
    )
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    error = torch.linalg.vector_norm(flat.gradient - expected)
    assert float(error) <= 1e-5 * float(torch.linalg.vector_norm(expected))


@pytest.mark.parametrize(("rate", "members"), [(0.05, 1), (0.05, 3), (0.3, 2)])
def test_dropout_drops_its_share_independently_in_each_member(rate: float, members: int) -> None:
    drop = make_dropout(rate, members, mix(1, 2))
    bits = hash_bits(400, 500, drop.seed, CPU)
    field = 2**drop.bits - 1
    dropped = [(bits >> m * drop.bits & field) < drop.threshold for m in range(members)]
    for mask in dropped:
        assert float(mask.float().mean()) == pytest.approx(rate, abs=0.002)
        assert float(mask.float().mean(0).std()) < 1.3 * (rate * (1 - rate) / 400) ** 0.5
    if members > 1:
        both = (dropped[0] & dropped[1]).float().mean()
        assert float(both) == pytest.approx(rate**2, abs=0.002)
    assert (1 - drop.threshold / 2**drop.bits) * drop.keep_scale == pytest.approx(1)


def test_dropout_differs_by_step_window_layer_and_input() -> None:
    seeds = [
        mix(mix(window_seed(s, w)), group, place)
        for s in range(4)
        for w in range(4)
        for group in range(12)
        for place in (0, 8192)
    ]
    assert len(set(seeds)) == len(seeds)
    assert make_dropout(0.0, 3, 7) == NO_DROPOUT


def test_validation_by_the_fast_path_is_that_of_the_autograd_stepper() -> None:
    model, flat = prepare(base("llama"), dropout=0.5)
    window = window_tensors(make_window(7, 12), CPU)
    losses, hits = AutogradStepper(model, 99).measure(window)
    ours, our_hits = FastStepper(model, flat, max_tokens=5).measure(window)
    torch.testing.assert_close(ours, losses, rtol=1e-5, atol=1e-5)
    assert torch.equal(hits, our_hits)


@pytest.mark.parametrize(
    ("kind", "offload"), [("stablelm", False), ("olmo2", False), ("olmo2", True)]
)
def test_buffers_take_the_bytes_that_are_computed_beforehand(kind: str, offload: bool) -> None:
    model, flat = prepare(base(kind))
    for kept in (0, 2, 3):
        stepper = FastStepper(model, flat, max_tokens=300, kept_layers=kept, offload=offload)
        stepper.measure(window_tensors(make_window(9), CPU))  # allocates them
        found: set[int] = set()
        total = 0
        streams = [stepper._buffers.stream, stepper._buffers.branches]
        found.update(host.data_ptr() for stream in streams for host in stream.host)
        stack: list[Any] = [stepper._buffers]
        while stack:
            item = stack.pop()
            if isinstance(item, torch.Tensor):
                total += item.numel() * item.element_size() * (item.data_ptr() not in found)
                found.add(item.data_ptr())
            elif isinstance(item, tuple):
                stack += item
            elif hasattr(item, "__dataclass_fields__"):
                stack += vars(item).values()
        shared = shared_bytes(stepper.parts, 300) if kept == 3 else 0  # no layer needs it
        expected = fixed_bytes(stepper.parts, 300, offload)
        expected += kept * kept_bytes(stepper.parts, 300)
        assert total == expected - shared, kept


def test_rotating_both_operands_keeps_their_product() -> None:
    grad, weight = torch.randn(7, 192), torch.randn(192, 40)
    rotated = rotate(grad) @ rotate(weight.t()).t()
    torch.testing.assert_close(rotated, grad @ weight, rtol=1e-5, atol=1e-5)
    assert float(rotate(torch.eye(192)[:1]).abs().max()) == pytest.approx(1 / 8)  # spread evenly


@pytest.mark.parametrize("kept", [0, 3])
def test_an_int8_backward_pass_changes_gradients_by_rounding_alone(kept: int) -> None:
    model, flat = prepare(base("stablelm"))
    window = window_tensors(make_window(7, 12), CPU)
    found = []
    for backward in ("bf16", "int8"):
        flat.clear()
        stepper = FastStepper(model, flat, max_tokens=19, kept_layers=kept, backward=backward)
        loss = stepper.run([window], window.trained_tokens, seed=1)
        found.append((float(loss), flat.gradient.clone()))
    (loss, gradient), (loss8, gradient8) = found
    assert loss8 == loss
    error = torch.linalg.vector_norm(gradient8 - gradient) / torch.linalg.vector_norm(gradient)
    assert 1e-4 < float(error) < 0.02


def test_with_int8_the_residual_stream_is_summed_in_32_bit() -> None:
    model, flat = prepare(base("stablelm").to(torch.bfloat16))
    window = window_tensors(make_window(7, 12), CPU)
    stepper = FastStepper(model, flat, max_tokens=19, backward="int8")
    stepper.run([window], window.trained_tokens, seed=1)
    wide = stepper._buffers.scratch.wide.view(19, -1)
    last = stepper._buffers.stream.at(stepper.layers, 19)
    assert torch.equal(last, wide.to(torch.bfloat16))
    assert not torch.equal(last.float(), wide)


def test_layers_that_cannot_be_rotated_run_without_int8_and_a_line_says_so() -> None:
    model, flat = prepare(base("llama"))  # its keys have 32 features
    said: list[str] = []

    class Sink:
        def update(self, *_: Any) -> None: ...

        def message(self, text: str) -> None:
            said.append(text)

    with progress.sink(Sink()):
        both(model, flat, backward="int8")
    assert "no multiple of 64" in said[0]


@pytest.mark.parametrize(
    ("lora", "words"),
    [({"use_dora": True}, "DoRA"), ({"targets": ("q_proj", "v_proj")}, None)],
)
def test_an_unsupported_model_uses_the_autograd_stepper_and_logs_the_reason(
    lora: dict[str, Any], words: str | None
) -> None:
    model, flat = prepare(base("llama"), **lora)
    said: list[str] = []

    class Sink:
        def update(self, *_: Any) -> None: ...

        def message(self, text: str) -> None:
            said.append(text)

    choice: dict[str, Any] = {"kept_layers": None, "max_tokens": 8}
    with progress.sink(Sink()):
        stepper = pick_stepper(model, flat, fast_path="auto", **choice)
    assert stepper.name == ("fast" if words is None else "plain")
    assert (words or "") in " ".join(said)
    assert len(said) == (words is not None)
    assert pick_stepper(model, flat, fast_path="off", **choice).name == "plain"


def test_unsupported_layers_are_named() -> None:
    model, flat = prepare(base("llama"))
    type(model.get_base_model().model.layers[1]).__name__ = "OtherLayer"
    try:
        with pytest.raises(Unsupported, match="layers of kind OtherLayer"):
            FastStepper(model, flat, max_tokens=8)
    finally:
        type(model.get_base_model().model.layers[1]).__name__ = "LlamaDecoderLayer"


def test_a_window_filled_up_to_a_longer_one_gives_the_same_gradients() -> None:
    model, flat = prepare(base("stablelm"), dropout=0.2)
    window = window_tensors(make_window(7, 12), CPU)
    found = []
    for tokens in (19, 32):
        flat.clear()
        stepper = FastStepper(model, flat, max_tokens=32, kept_layers=1)
        loss = stepper.run([padded(window, tokens)], window.trained_tokens, seed=1)
        found.append((float(loss), flat.gradient.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-5, atol=1e-6)


def test_few_lengths_serve_all_windows_at_most_an_eighth_longer() -> None:
    lengths = {bucket(n) for n in range(1, 8193)}
    assert len(lengths) < 50
    assert bucket(4096) == 4096
    assert bucket(8192) == 8192
    assert all(n <= bucket(n) <= max(n * 1.125 + 1, n + SMALLEST - 1) for n in range(1, 20_000))
