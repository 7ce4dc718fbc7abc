"""The fast path's operations in PyTorch: the reference for the GPU kernels, and used on CPUs.

All operations work on [tokens, features] matrices and write into tensors of the caller.

LoRA is folded into the matrix products. The input of linear layers is *extended*: after its K
features come the columns u = scale * dropout(x) A^T [tokens, members * rank], then zeros up to a
multiple of `PAD`. The weight [n, K] is extended with B in the same columns. Then one product
computes both parts, and one product in the backward pass computes both gradients:

    [x, u, 0] [W, B, 0]^T = x W^T + scale * dropout(x) A^T B^T
    grad [W, B, 0]        = [gradient of x through W, gradient of u, 0]

*Members* are linear layers that share an input (q, k and v; gate and up). Their weights lie one
below the other; each member has its own columns of u, zero in the rows of other members' B.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

PAD = 32  # multiple of extended widths: keeps rows aligned for the matrix units
# odd multipliers of murmur3's finalizer, and of Fibonacci hashing (2^32 / golden ratio)
_GOLDEN, _MIX1, _MIX2, _BITS32 = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0xFFFFFFFF


@dataclass(frozen=True)
class Dropout:
    """Dropout of a LoRA input by a hash of index and seed, so that no mask has to be stored.

    All members that share an input use one 32-bit hash; each takes `bits` bits of its own.

    Attributes:
        seed: 32 bits; differs by step, window, layer and input.
        bits: Bits per member: 16, or 10 for three members.
        threshold: A member's value is dropped if its bits are below it.
        seeds: int32 tensor of a window's seeds, from which GPU kernels read the seed, so that a
            recorded launch can run with other seeds; None: they use `seed`.
        place: Index of the seed in `seeds`.
    """

    seed: int
    bits: int
    threshold: int
    seeds: Tensor | None = None
    place: int = 0

    @property
    def keep_scale(self) -> float:
        """Factor of kept values that preserves the mean, for the rate that `bits` can express."""
        return 1.0 / (1.0 - self.threshold / (1 << self.bits))


NO_DROPOUT = Dropout(0, 10, 0)


def make_dropout(
    rate: float, members: int, seed: int, seeds: Tensor | None = None, place: int = 0
) -> Dropout:
    """Dropout at the rate nearest to `rate` that 32 bits for all members can express."""
    bits = min(16, 32 // members)
    threshold = round(rate * 2**bits)
    return Dropout(seed & _BITS32, bits, threshold, seeds, place) if rate else NO_DROPOUT


def mix(*parts: int) -> int:
    """A 32-bit seed from several integers, each of which affects all bits."""
    value = 0x243F6A88
    for part in parts:
        value = (value ^ (part & _BITS32) ^ (part >> 32 & _BITS32)) * _GOLDEN & _BITS32
        value ^= value >> 16
        value = value * _MIX1 & _BITS32
        value ^= value >> 13
    return value


def hash_bits(rows: int, columns: int, seed: int, device: torch.device) -> Tensor:
    """32 hash bits per value, int32[rows, columns]: murmur3's finalizer over the value's index.

    PyTorch has few operations on unsigned integers, so this computes with int32: products wrap
    alike, and the ones that a right shift of a negative number brings in are masked off.
    """
    h = torch.arange(rows * columns, dtype=torch.int32, device=device)
    h.mul_(signed(_GOLDEN)).add_(signed(seed))
    for shift, factor in ((16, _MIX1), (13, _MIX2)):
        h.bitwise_xor_((h >> shift).bitwise_and_(2 ** (32 - shift) - 1)).mul_(signed(factor))
    h.bitwise_xor_((h >> 16).bitwise_and_(0xFFFF))
    return h.view(rows, columns)


def signed(bits: int) -> int:
    """An unsigned 32-bit integer reinterpreted as int32."""
    return bits - 2**32 if bits >= 2**31 else bits


@dataclass(frozen=True)
class Bounds:
    """Sample boundaries of a packed window.

    Attributes:
        starts: int32[tokens], first token of each token's sample.
        ends: int32[tokens], end of each token's sample, exclusive.
        cu_seqlens: int32[samples + 1], cumulative lengths.
    """

    starts: Tensor
    ends: Tensor
    cu_seqlens: Tensor


@dataclass(frozen=True)
class Heads:
    """Shape of attention: query heads, key/value heads, features per head, rotated features."""

    queries: int
    keys: int
    size: int
    rotated: int

    @property
    def width(self) -> int:
        """Columns of q, k and v side by side."""
        return (self.queries + 2 * self.keys) * self.size

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as views [tokens, heads, size]."""
        q, k = self.queries * self.size, self.keys * self.size
        tokens = qkv.shape[0]
        return (
            qkv[:, :q].view(tokens, self.queries, self.size),
            qkv[:, q : q + k].view(tokens, self.keys, self.size),
            qkv[:, q + k :].view(tokens, self.keys, self.size),
        )


@dataclass(frozen=True)
class NormWeights:
    """A frozen LayerNorm if `layer_norm`, else an RMSNorm."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    layer_norm: bool


@dataclass(frozen=True)
class LoraInput:
    """The A side of the LoRA layers that share one input.

    Attributes:
        a: [members * rank, K], one A below the other, in the precision of the products.
        members: LoRA layers that share the input.
        scale: LoRA's alpha / rank.
        drop: The same in the forward and the backward pass.
    """

    a: Tensor
    members: int
    scale: float
    drop: Dropout

    @property
    def rank(self) -> int:
        """Rows of one member's A."""
        return self.a.shape[0] // self.members

    @property
    def factor(self) -> float:
        """LoRA's scale times dropout's."""
        return self.scale * self.drop.keep_scale


@dataclass(frozen=True)
class AttentionTensors:
    """Attention of one layer over one window.

    Attributes:
        qkv: [tokens, heads.width], q and k rotated.
        out: [tokens, queries * size], the output; may be a view of wider rows.
        lse: float32[queries, tokens], log-sum-exp of the scores for the backward pass; only the GPU
            kernels use it, in base 2.
        heads: Shape.
        bounds: Of the samples.
    """

    qkv: Tensor
    out: Tensor
    lse: Tensor
    heads: Heads
    bounds: Bounds


class TorchOps:
    """The operations by PyTorch, on any device and in any precision.

    Masks are kept from the forward to the backward pass, one byte per value: hashing takes a dozen
    passes over memory in PyTorch and none in a GPU kernel.
    """

    def __init__(self) -> None:
        self._masks: dict[int, list[Tensor]] = {}

    @staticmethod
    def load_weight(weight: Any, b: Tensor | None, column: int, out: Tensor) -> None:
        """Write a weight [n, K] and B [n, r] into `out` [n, width], rows of an extended weight.

        Args:
            weight: A parameter; bitsandbytes' Params4bit is dequantized.
            b: LoRA's B, or None.
            column: B's first column after the K columns; columns without B become 0.
            out: Overwritten.
        """
        state = getattr(weight, "quant_state", None)
        if state is None:
            full = weight
        else:
            import bitsandbytes as bnb

            full = bnb.functional.dequantize_4bit(weight.data, state).view(state.shape)
        inner = full.shape[1]
        out[:, :inner].copy_(full)
        out[:, inner:].zero_()
        if b is not None:
            start = inner + column
            out[:, start : start + b.shape[1]].copy_(b)

    @staticmethod
    def norm(x: Tensor, norm: NormWeights, out: Tensor) -> None:
        """LayerNorm or RMSNorm of the rows of `x`, into `out` [tokens, K], a view.

        Rounded once, after the weight; transformers' RMSNorm in bfloat16 rounds before it, too.
        """
        hat, _ = _normalized(x.float(), norm)
        result = hat * norm.weight.float()
        out.copy_(result if norm.bias is None else result + norm.bias.float())

    @staticmethod
    def norm_backward(x: Tensor, norm: NormWeights, grad: Tensor, residual: Tensor) -> None:
        """Add the norm's input gradient to `residual` in place; `grad` is that of its output."""
        hat, rstd = _normalized(x.float(), norm)
        slope = grad.float() * norm.weight.float()
        inner = slope - hat * (slope * hat).mean(-1, keepdim=True)
        if norm.layer_norm:
            inner -= slope.mean(-1, keepdim=True)
        residual.copy_(residual.float() + inner * rstd)

    def lora_in(self, x: Tensor, lora: LoraInput, side: Tensor) -> None:
        """Write u = scale * dropout(x) A^T of all members after x's K columns, then zeros.

        Args:
            x: Extended input.
            lora: A and dropout.
            side: [tokens, members * rank]; u is written there, too.
        """
        a, drop, rank, inner = lora.a, lora.drop, lora.rank, lora.a.shape[1]
        if not drop.threshold:
            torch.mul(x[:, :inner] @ a.t(), lora.factor, out=side)
        else:
            masks = self._masks[drop.seed] = make_masks(len(x), inner, lora.members, drop, x.device)
            for member, mask in enumerate(masks):
                rows = slice(member * rank, (member + 1) * rank)
                torch.mul((x[:, :inner] * mask) @ a[rows].t(), lora.factor, out=side[:, rows])
        self.restore(x, side, inner)

    @staticmethod
    def restore(x: Tensor, side: Tensor, inner: int) -> None:
        """Write `side` after the first `inner` columns of an extended input, then zeros."""
        x[:, inner : inner + side.shape[1]].copy_(side)
        x[:, inner + side.shape[1] :].zero_()

    def lora_in_backward(self, x: Tensor, grad: Tensor, lora: LoraInput, a_grad: Tensor) -> None:
        """From the gradient of an extended input: A's gradient, and A's part of the input's.

        Args:
            x: The input; columns after the first K are not read.
            grad: Of the extended input; A's part is added to the first K columns in place.
            lora: As in the forward pass; its stored masks are used up.
            a_grad: float32, like `lora.a`; added to.
        """
        a, drop, rank, inner = lora.a, lora.drop, lora.rank, lora.a.shape[1]
        u_grad, to = grad[:, inner : inner + len(a)] * lora.factor, grad[:, :inner]
        if not drop.threshold:
            a_grad += u_grad.t() @ x[:, :inner]
            to += u_grad @ a
            return
        masks = self._masks.pop(drop.seed, None)
        if masks is None:
            masks = make_masks(len(x), inner, lora.members, drop, x.device)
        for member, mask in enumerate(masks):
            rows = slice(member * rank, (member + 1) * rank)
            a_grad[rows] += u_grad[:, rows].t() @ (x[:, :inner] * mask)
            to += (u_grad[:, rows] @ a[rows]).mul_(mask)

    @staticmethod
    def lora_out_backward(grad: Tensor, u: Tensor, b_grad: Tensor) -> None:
        """Add grad^T u to B's gradient: [tokens, n], [tokens, r] -> float32[n, r].

        `u` holds LoRA's scale and dropout already.
        """
        b_grad += grad.t() @ u

    @staticmethod
    def rope(qkv: Tensor, heads: Heads, cos: Tensor, sin: Tensor, inverse: bool) -> None:
        """Rotate q and k in place by tables float32[tokens, rotated / 2]; the gradient: `inverse`.

        Feature i is paired with i + rotated / 2; features past `rotated` stay.
        """
        q, k, _ = heads.split(qkv)
        half = heads.rotated // 2
        s = -sin if inverse else sin
        for part in (q, k):
            first, second = part[..., :half].float(), part[..., half : heads.rotated].float()
            c1, s1 = cos[:, None], s[:, None]
            turned = first * c1 - second * s1, second * c1 + first * s1
            part[..., :half], part[..., half : heads.rotated] = turned

    @staticmethod
    def attention(state: AttentionTensors) -> None:
        """Causal attention within each sample, into `state.out` and `state.lse`."""
        for start, stop in pairwise(state.bounds.cu_seqlens.tolist()):
            state.out[start:stop] = _attend(state.qkv[start:stop], state.heads)

    @staticmethod
    def attention_backward(state: AttentionTensors, grad: Tensor, to: Tensor) -> None:
        """Gradient of q, k, v into `to` [tokens, width] from `grad` of `state.out`."""
        for start, stop in pairwise(state.bounds.cu_seqlens.tolist()):
            with torch.enable_grad():
                part = state.qkv[start:stop].detach().requires_grad_()
                out = _attend(part, state.heads)
                (to[start:stop],) = torch.autograd.grad(out, part, grad[start:stop])

    @staticmethod
    def swiglu(gate_up: Tensor, out: Tensor) -> None:
        """silu(gate) * up from [tokens, 2 F] into `out` [tokens, F]."""
        gate, up = gate_up.chunk(2, -1)
        out.copy_(torch.nn.functional.silu(gate.float()) * up.float())

    @staticmethod
    def swiglu_backward(gate_up: Tensor, grad: Tensor) -> None:
        """Replace gate and up by their gradients, in place; `grad` is that of the output."""
        gate, up = (part.float() for part in gate_up.chunk(2, -1))
        share = torch.sigmoid(gate)
        slopes = up * share * (1 + gate * (1 - share)), gate * share
        for part, slope in zip(gate_up.chunk(2, -1), slopes, strict=True):
            part.copy_(grad.float() * slope)

    def swiglu_lora(self, gate_up: Tensor, out: Tensor, lora: LoraInput, side: Tensor) -> None:
        """`swiglu` into the first columns of the extended `out`, then `lora_in` of it."""
        self.swiglu(gate_up, out[:, : lora.a.shape[1]])
        self.lora_in(out, lora, side)

    def swiglu_lora_backward(
        self, gate_up: Tensor, grad: Tensor, lora: LoraInput, a_grad: Tensor
    ) -> None:
        """`lora_in_backward` and `swiglu_backward`; `grad` is that of the extended output."""
        inner = lora.a.shape[1]
        act = torch.empty_like(gate_up[:, :inner])
        self.swiglu(gate_up, act)
        self.lora_in_backward(act, grad, lora, a_grad)
        self.swiglu_backward(gate_up, grad[:, :inner])

    @staticmethod
    def cross_entropy(logits: Tensor, targets: Tensor, scale: float, losses: Tensor) -> None:
        """Loss of each row into `losses`; `logits` become their gradient times `scale`."""
        full = logits.float()
        losses.copy_(torch.nn.functional.cross_entropy(full, targets, reduction="none"))
        slope = torch.softmax(full, -1)
        slope[torch.arange(len(targets), device=targets.device), targets] -= 1
        logits.copy_(slope * scale)


def _normalized(x: Tensor, norm: NormWeights) -> tuple[Tensor, Tensor]:
    """Normalized rows and one over their deviation."""
    centered = x - x.mean(-1, keepdim=True) if norm.layer_norm else x
    rstd = torch.rsqrt(centered.square().mean(-1, keepdim=True) + norm.eps)
    return centered * rstd, rstd


def make_masks(
    rows: int, columns: int, members: int, drop: Dropout, device: torch.device
) -> list[Tensor]:
    """One mask per member, bool[rows, columns], true for kept values."""
    h = hash_bits(rows, columns, drop.seed, device)
    field = 2**drop.bits - 1
    return [(h >> member * drop.bits & field) >= drop.threshold for member in range(members)]


def _attend(qkv: Tensor, heads: Heads) -> Tensor:
    q, k, v = (part.transpose(0, 1)[None] for part in heads.split(qkv))
    repeats = heads.queries // heads.keys
    if repeats > 1:
        k, v = (part.repeat_interleave(repeats, dim=1) for part in (k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out[0].transpose(0, 1).reshape(qkv.shape[0], -1)
