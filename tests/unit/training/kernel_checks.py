"""Each kernel against its PyTorch counterpart: `python -m tests.unit.training.kernel_checks`.

Arguments: case or `all`, device. On the CPU TRITON_INTERPRET=1 must be set before Triton loads.
"""

import sys
from typing import Any

import torch

from tasks.training.fast.ops.dropout import make_dropout
from tasks.training.fast.ops.operands import (
    Activation,
    AttentionTensors,
    Bounds,
    GateUpLora,
    Heads,
    LoraInput,
    NormWeights,
    Packed,
    Rotated,
    Rounded,
)
from tasks.training.fast.ops.torch_ops import TorchOps
from tasks.training.fast.ops.torch_weights import column_scales
from tasks.training.fast.ops.triton_ops import TritonOps

OURS, WANTED = TritonOps(), TorchOps()
KIND: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def new(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float32).to(**KIND)


def same(ours: torch.Tensor, wanted: torch.Tensor, rough: float = 1e-2) -> None:
    ours, wanted = ours.float(), wanted.float()
    error = torch.linalg.vector_norm(ours - wanted) / torch.linalg.vector_norm(wanted)
    limit = 1e-5 if KIND["dtype"] == torch.float32 else rough
    assert float(error) < limit, f"relative error {float(error):.2e}"


def bounds(*lengths: int) -> Bounds:
    cuts = torch.tensor([0, *lengths]).cumsum(0)
    starts = torch.repeat_interleave(cuts[:-1], torch.tensor(lengths))
    ends = torch.repeat_interleave(cuts[1:], torch.tensor(lengths))
    device = KIND["device"]
    return Bounds(*(t.to(torch.int32).to(device) for t in (starts, ends, cuts)))


def load_weight() -> None:
    import bitsandbytes as bnb

    for nested in (True, False):
        weight = bnb.nn.Params4bit(
            new(96, 576).cpu(), quant_type="nf4", compress_statistics=nested
        ).to(KIND["device"])
        b = new(96, 4)
        for tail, column, lora in ((32, 8, b), (0, 0, None), (32, 0, None)):
            ours, wanted = (torch.full((96, 576 + tail), 9.0, **KIND) for _ in range(2))
            OURS.load_weight(weight, lora, column, ours)
            WANTED.load_weight(weight, lora, column, wanted)
            same(ours, wanted)


def norms() -> None:
    for layer_norm in (True, False):
        x = new(7, 96)
        norm = NormWeights(new(96), new(96) if layer_norm else None, 1e-5, layer_norm)
        ours, wanted = (torch.zeros(7, 128, **KIND) for _ in range(2))
        OURS.norm(x, norm, ours[:, :96])
        WANTED.norm(x, norm, wanted[:, :96])
        same(ours, wanted)
        stream = new(7, 128)[:, 32:]
        OURS.norm(x, norm, ours[:, :96], stream)
        WANTED.norm(x, norm, wanted[:, :96], stream)
        same(ours, wanted)
        grad, first = new(7, 128), new(7, 96)
        second = first.clone()
        OURS.norm_backward(x, norm, grad[:, :96], first)
        WANTED.norm_backward(x, norm, grad[:, :96], second)
        same(first, second)


def head_norms() -> None:
    """Of heads, with one weight or one each, in place in the gradient."""
    for layer_norm, own in ((True, True), (False, False)):
        x, grad = new(7, 6, 40)[:, :4], new(7, 6, 40)
        shape = (4, 40) if own else (40,)
        norm = NormWeights(new(*shape), new(*shape) if layer_norm else None, 1e-5, layer_norm)
        found = []
        for ops in (OURS, WANTED):
            out, back = torch.zeros(7, 6, 40, **KIND), grad.clone()
            ops.norm(x, norm, out[:, 1:5])
            ops.norm_backward(x, norm, back[:, 1:5], back[:, 1:5], add=False)
            found.append((out, back))
        for ours, wanted in zip(*found, strict=True):
            same(ours, wanted)


def norm_rope() -> None:
    """Norms of heads with the rotation: by one kernel, and by several where it does not fit."""
    for more, size, rotated, layer_norm in (
        ({}, 40, 40, False),
        ({}, 40, 20, False),
        ({"adjacent_pairs": True}, 40, 40, False),
        ({}, 40, 40, True),
    ):
        heads = Heads(9, 2, size, rotated, **more)
        norms = tuple(NormWeights(new(size), None, 1e-5, layer_norm) for _ in "qk")
        table = tuple(torch.randn(7, rotated // 2, device=KIND["device"]) for _ in "cs")
        x, grad, found = new(7, heads.width), new(7, heads.width), []
        for ops in (OURS, WANTED):
            out, back = torch.zeros_like(x), grad.clone()
            ops.norm_heads(x, norms, out, heads, table)
            ops.norm_heads_backward(x, norms, back, heads, table)
            found.append((out, back))
        for ours, wanted in zip(*found, strict=True):
            same(ours, wanted)


def lora_in() -> None:
    for members, rate, rank in ((1, 0.0, 8), (3, 0.0, 4), (1, 0.3, 8), (2, 0.3, 16), (3, 0.3, 8)):
        drop = make_dropout(rate, members, 0xDEADBEEF)
        lora, first = LoraInput(new(members * rank, 160), members, 2.0, drop), new(70, 160 + 64)
        second = first.clone()
        sides = [new(70, members * rank) for _ in range(2)]
        OURS.lora_in(first, lora, sides[0])
        WANTED.lora_in(second, lora, sides[1])
        same(first, second)
        same(*sides)
        assert float(first[:, 160 + members * rank :].abs().sum()) == 0
        third = new(70, 160 + 64)
        third[:, :160] = first[:, :160]
        OURS.restore(third, sides[0], 160)
        assert torch.equal(third, first)


def activation() -> None:
    """With and without gates, LoRA on the output, on gate and up, and a copy in 8 bit."""
    for name, gated, rate, rank, above, pack in (
        ("silu", True, 0.0, 8, (0, 4), False),
        ("silu", True, 0.3, 8, (-1, 0), True),
        ("silu", True, 0.3, 0, (0, -1), True),
        ("silu", True, 0.0, 0, (-1, -1), False),
        ("gelu_tanh", True, 0.3, 8, (0, 4), True),
        ("gelu", False, 0.0, 8, (0, -1), False),
        ("gelu_tanh", False, 0.3, 8, (0, -1), True),
        ("relu2", False, 0.0, 0, (-1, -1), True),
    ):
        form, parts = Activation(name, gated), 2 if gated else 1
        drop = make_dropout(rate, 1, 0xDEADBEEF)
        lora = LoraInput(new(rank, 160), 1, 2.0, drop) if rank else None
        gate_up = new(70, parts * 160)
        u, starts = new(70, 8), [new(rank or 1, 160).float(), *(new(160, 4).float() for _ in "ab")]
        grad, found = new(70, 192), []
        for ops in (OURS, WANTED):
            out, side = torch.zeros(70, 192, **KIND), torch.zeros(70, rank, **KIND)
            values = torch.full(gate_up.shape, 9, dtype=torch.int8, device=KIND["device"])
            scales = torch.zeros(70, parts * 3, device=KIND["device"])
            packed = Packed(values, scales) if pack else None
            ops.activate(form, gate_up, out, lora, side, packed)
            back = torch.zeros_like(gate_up) if pack else gate_up.clone()
            a_grad, *sums = (start.clone() for start in starts)
            given = GateUpLora(
                u, 4, *above, *(s if at >= 0 else None for s, at in zip(sums, above, strict=True))
            )
            ops.activate_backward(form, back, grad.clone(), lora, a_grad, given, packed)
            found.append([out, side, back, a_grad, *sums])
            if packed is not None:
                found[-1] += [packed.scales, packed.values]
        for ours, wanted in zip(*found, strict=True):
            if wanted.numel():
                same(ours, wanted)


def backward8() -> None:
    """A group of two members: rotated weights, a rounded gradient, their product."""
    import bitsandbytes as bnb

    inner, sizes, grad = 320, (128, 64), new(70, 192)
    for nested in (True, False):
        members = [
            bnb.nn.Params4bit(new(n, inner).cpu(), quant_type="nf4", compress_statistics=nested).to(
                KIND["device"]
            )
            for n in sizes
        ]
        bs, scales = [new(n, 4) for n in sizes], column_scales(members, inner, KIND["dtype"])
        exact = torch.zeros(192, inner + 32, **KIND)
        found = []
        for ops in (OURS, WANTED):
            values = torch.zeros(inner, 192, dtype=torch.int8, device=KIND["device"])
            weight = Rotated(values, scales, torch.full((192, 32), 9.0, **KIND))
            for i, part in enumerate((slice(0, 128), slice(128, 192))):
                ops.load_rotated(members[i], bs[i], 8 * i, weight, part)
                ops.load_weight(members[i], bs[i], 8 * i, exact[part])
            shape = torch.zeros(70, 192, dtype=torch.int8, device=KIND["device"])
            rounded = Rounded(shape, torch.zeros(70, device=KIND["device"]))
            back = torch.zeros(70, inner + 32, **KIND)
            ops.quantize(grad, weight.tail, rounded, back[:, inner:])
            ops.product8(rounded, weight, back[:, :inner])
            found.append([rounded.scales, rounded.values, weight.values, weight.tail, back])
            truth = grad.float() @ exact.float()
            off = torch.linalg.vector_norm(back.float() - truth)
            assert float(off) < 0.02 * float(torch.linalg.vector_norm(truth))
        for ours, wanted in zip(*found, strict=True):
            same(ours, wanted)


def add_product() -> None:
    wide, x, weight = new(70, 96).float(), new(70, 160), new(96, 160)
    found = [wide.clone(), wide.clone()]
    for ops, to in zip((OURS, WANTED), found, strict=True):
        ops.add_product(to, x, weight, 0.5)
    assert not torch.equal(found[0], wide)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-4)


def lora_in_backward() -> None:
    for members, rate, rank in ((1, 0.0, 8), (1, 0.3, 8), (2, 0.3, 16), (3, 0.3, 4)):
        drop = make_dropout(rate, members, 12345)
        a, x, first = new(members * rank, 160), new(200, 192), new(200, 192)
        second = first.clone()
        start = torch.randn(members * rank, 160).to(KIND["device"])
        a_first, a_second = start.clone(), start.clone()
        lora = LoraInput(a, members, 2.0, drop)
        OURS.lora_in_backward(x, first, lora, a_first)
        WANTED.lora_in_backward(x, second, lora, a_second)
        same(first[:, :160], second[:, :160])
        same(a_first, a_second)


def lora_out_backward() -> None:
    grad, u = new(200, 160), new(200, 96)[:, 80:88]
    ours = torch.ones(160, 8, device=KIND["device"])
    wanted = ours.clone()
    OURS.lora_out_backward(grad[:, 32:], u, ours[32:])
    WANTED.lora_out_backward(grad[:, 32:], u, wanted[32:])
    same(ours, wanted)


def rope() -> None:
    for more in ({}, {"adjacent_pairs": True}, {"grouped": True}):
        heads = Heads(4, 4 if "grouped" in more else 2, 20, 10, **more)
        first = new(9, heads.width)
        second = first.clone()
        cos, sin = (torch.randn(9, 5, device=KIND["device"]) for _ in range(2))
        for inverse in (False, True):
            OURS.rope(first, heads, cos, sin, inverse)
            WANTED.rope(second, heads, cos, sin, inverse)
            same(first, second)


def windowed(where: Bounds, window: int) -> Bounds:
    """The bounds with a sliding window."""
    at = torch.arange(len(where.starts), dtype=torch.int32, device=where.starts.device)
    starts = torch.maximum(where.starts, at - (window - 1))
    return Bounds(starts, torch.minimum(where.ends, at + window), where.cu_seqlens, window)


def attention() -> None:
    """Head sizes, shared keys, a window, a soft cap, and the layout of GPT-NeoX."""
    for size, queries, keys, window, more in (
        (16, 2, 2, 0, {}),
        (80, 2, 2, 0, {}),
        (40, 4, 2, 0, {}),
        (40, 4, 1, 20, {"cap": 1.5, "scaling": 0.3}),
        (80, 2, 2, 40, {"grouped": True}),
        (256, 2, 1, 70, {"cap": 2.0}),
    ):
        heads, where = Heads(queries, keys, size, size, **more), bounds(5, 1, 90, 64, 33)
        where = windowed(where, window) if window else where
        tokens = len(where.starts)
        qkv, grad = new(tokens, heads.width), new(tokens, queries * size + 32)[:, : queries * size]
        outs, grads = [], []
        for ops in (OURS, WANTED):
            out = torch.zeros(tokens, queries * size + 32, **KIND)[:, : queries * size]
            lse = torch.zeros(queries, tokens, device=KIND["device"])
            state, to = AttentionTensors(qkv, out, lse, heads, where), torch.zeros_like(qkv)
            ops.attention(state)
            ops.attention_backward(state, grad, to)
            outs.append(out)
            grads.append(to)
        same(*outs)
        same(*grads)


def cross_entropy() -> None:
    for cap in (0.0, 1.5):
        logits = new(5, 9000)
        targets = torch.randint(0, 9000, (5,), device=KIND["device"])
        first, second = logits.clone(), logits.clone()
        losses = [torch.zeros(5, device=KIND["device"]) for _ in range(2)]
        OURS.cross_entropy(first, targets, 0.1, losses[0], cap)
        WANTED.cross_entropy(second, targets, 0.1, losses[1], cap)
        same(first, second)
        same(*losses)


def whole_step() -> None:
    """All kernels together, with dropout: the gradients of PyTorch's operations, or as near to
    those in float32.

    In bfloat16, gradients of such small models differ by several percent however they are computed.
    """
    from tests.unit.training.conftest import FAMILIES

    more = FAMILIES if KIND["device"] == "cuda" else ()  # the interpreter takes minutes
    for kind in ("llama", "stablelm", *more):
        ours, wanted = (_step_of(kind, ops, KIND["dtype"]) for ops in (OURS, WANTED))
        if KIND["dtype"] == torch.float32:
            for one, other in zip(ours, wanted, strict=True):
                same(one, other)
            continue
        truth = _step_of(kind, WANTED, torch.float32)
        for one, other, true in zip(ours, wanted, truth, strict=True):
            error, plain = (float((x - true).norm() / true.norm()) for x in (one, other))
            assert error < 1.3 * plain + 5e-3, f"{kind}: error {error:.2e}, plain {plain:.2e}"


def _step_of(kind: str, ops: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradients of one step of a tiny model, in float32."""
    from tasks.core.models.packed_forward import window_tensors
    from tasks.training.fast.model.groups import parameter_order
    from tasks.training.fast.step import FastStepper
    from tasks.training.lora import add_lora
    from tasks.training.steppers.flat_parameters import FlatParameters
    from tests.unit.training.conftest import make_window, tiny

    torch.manual_seed(0)
    base = tiny(kind).to(KIND["dtype"])  # the weights are the same in every type
    model = add_lora(base.to(KIND["device"], dtype), rank=4, alpha=16, dropout=0.2)
    flat = FlatParameters(model, parameter_order)
    with torch.no_grad():
        noise = 0.05 * torch.randn(flat.values.shape, generator=torch.manual_seed(3))
        flat.values.add_(noise.to(KIND["device"]))
    window = window_tensors(make_window(20, 3, 50), torch.device(KIND["device"]))
    stepper = FastStepper(model, flat, max_tokens=73, kept_layers=1, ops=ops)
    loss = stepper.run([window], window.trained_tokens, seed=4)
    return loss.float(), flat.gradient.float().clone()


def noise() -> None:
    """On a GPU, in bfloat16: no farther from 32 bit than transformers and peft are."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tasks.core.models.packed_forward import window_tensors
    from tasks.training.fast.model.groups import parameter_order
    from tasks.training.fast.step import FastStepper
    from tasks.training.lora import add_lora
    from tasks.training.steppers.autograd_stepper import AutogradStepper
    from tasks.training.steppers.flat_parameters import FlatParameters
    from tests.unit.training.conftest import SHAPE, make_window

    if KIND["device"] == "cpu":
        return
    shape = SHAPE | {"hidden_size": 640, "intermediate_size": 1728, "num_attention_heads": 8}
    window = window_tensors(make_window(300, 40, 170, 900), torch.device("cuda"))
    results = {}
    for kind in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        config = LlamaConfig(**shape | {"max_position_embeddings": 2048}, num_key_value_heads=4)
        base = LlamaForCausalLM(config).to("cuda", kind)
        model = add_lora(base, rank=8, alpha=32, dropout=0.0)
        flat = FlatParameters(model, parameter_order)
        with torch.no_grad():
            noise = torch.randn(flat.values.shape, generator=torch.manual_seed(3))
            flat.values.add_(0.02 * noise.to("cuda"))
        steppers: list[Any] = [AutogradStepper(model, 99)]
        if kind == torch.bfloat16:
            steppers += [FastStepper(model, flat, max_tokens=2000, kept_layers=k) for k in (0, 3)]
        for stepper in steppers:
            flat.clear()
            loss = stepper.run([window], window.trained_tokens, seed=1)
            key = (kind, stepper.name, stepper.kept_layers)
            results[key] = (float(loss) / window.trained_tokens, flat.gradient.clone())
    (true_loss, truth), plain, *ours = results.values()

    def error(found: torch.Tensor) -> float:
        return float(torch.linalg.vector_norm(found - truth) / torch.linalg.vector_norm(truth))

    sys.stdout.write(f"plain off by {plain[0] - true_loss:.2e}, {error(plain[1]):.2e}\n")
    for loss, gradient in ours:
        sys.stdout.write(f"fast off by {loss - true_loss:.2e}, {error(gradient):.2e}\n")
        assert error(gradient) < 1.2 * error(plain[1])
        assert abs(loss - true_loss) < 2 * abs(plain[0] - true_loss) + 1e-3


def main(case: str, device: str) -> None:
    """Run one case or all; on a GPU in bfloat16."""
    torch.manual_seed(0)
    if device == "cuda":
        KIND.update(device="cuda", dtype=torch.bfloat16)
    cases = [
        load_weight,
        add_product,
        norms,
        head_norms,
        norm_rope,
        lora_in,
        lora_in_backward,
        lora_out_backward,
        rope,
        attention,
    ]
    for run in [*cases, activation, backward8, cross_entropy, whole_step, noise]:
        if case in ("all", run.__name__):
            run()
            sys.stdout.write(f"ok {run.__name__}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
