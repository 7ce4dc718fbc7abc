"""The operations of the fast path in plain PyTorch: what the GPU kernels are held against.

All work on [tokens, features] matrices and write into tensors that they are given. A LoRA layer's
input is *extended*: behind its K features stand the R = members x rank columns of `scale *
dropout(x) A^T`, then zeros up to a round width. Its weight is extended with B in the same columns,
so that one matrix product gives `x W^T + scale * dropout(x) A^T B^T`, and one in the backward pass
gives the gradient of both parts.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

PAD = 32  # extended widths are multiples of it, which keeps rows aligned for the matrix units
_GOLDEN, _MIX1, _MIX2, _BITS32 = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0xFFFFFFFF


@dataclass(frozen=True)
class Dropout:
    """Which values of a LoRA input are dropped: a hash of place and seed, nothing is stored.

    One hash of 32 bits serves all members that share an input; each takes bits of its own.

    Attributes:
        seed: 32 bits; differs by step, window, layer and input.
        bits: Of the hash that a member takes.
        threshold: A member's value is dropped where its bits are below it.
    """

    seed: int
    bits: int
    threshold: int

    @property
    def keep_scale(self) -> float:
        """What kept values are multiplied by, so that the mean stays."""
        return 1.0 / (1.0 - self.threshold / (1 << self.bits))


NO_DROPOUT = Dropout(0, 10, 0)


def make_dropout(rate: float, members: int, seed: int) -> Dropout:
    """Dropout at the nearest rate that `members` members can express with 32 bits together."""
    bits = min(16, 32 // members)
    return Dropout(seed & _BITS32, bits, round(rate * 2**bits)) if rate else NO_DROPOUT


def mix(*parts: int) -> int:
    """A 32-bit seed from several numbers, each of which changes all bits."""
    value = 0x243F6A88
    for part in parts:
        value = (value ^ (part & _BITS32) ^ (part >> 32 & _BITS32)) * _GOLDEN & _BITS32
        value ^= value >> 16
        value = value * _MIX1 & _BITS32
        value ^= value >> 13
    return value


def hash_bits(rows: int, columns: int, seed: int, device: torch.device) -> Tensor:
    """32 hash bits a place, int32[rows, columns] (murmur3's finalizer over the place's index).

    Products wrap around; a right shift of a negative number brings in ones, which are masked off.
    """
    h = torch.arange(rows * columns, dtype=torch.int32, device=device)
    h.mul_(signed(_GOLDEN)).add_(signed(seed))
    for shift, factor in ((16, _MIX1), (13, _MIX2)):
        h.bitwise_xor_((h >> shift).bitwise_and_(2 ** (32 - shift) - 1)).mul_(signed(factor))
    h.bitwise_xor_((h >> 16).bitwise_and_(0xFFFF))
    return h.view(rows, columns)


def signed(bits: int) -> int:
    """A 32-bit number as int32 holds it."""
    return bits - 2**32 if bits >= 2**31 else bits


@dataclass(frozen=True)
class Bounds:
    """Where the sample of each token begins and ends, int32[tokens] each."""

    starts: Tensor
    ends: Tensor
    cu_seqlens: Tensor


@dataclass(frozen=True)
class Heads:
    """Shape of attention: query and key/value heads, features a head, rotated features."""

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


class TorchOps:
    """The operations by PyTorch, on any device and in any precision.

    Masks are kept from the forward to the backward pass, a byte a value: a hash costs PyTorch a
    dozen passes over memory, where it costs a GPU kernel nothing.
    """

    def __init__(self) -> None:
        self._masks: dict[int, list[Tensor]] = {}

    @staticmethod
    def load_weight(weight: Any, b: Tensor | None, column: int, out: Tensor) -> None:
        """Write a weight [n, K] as stored (4-bit or plain) and B [n, r] into `out` [n, width].

        Args:
            weight: A parameter, perhaps bitsandbytes' Params4bit.
            b: LoRA's B, or None.
            column: Where B goes behind the K columns.
            out: Rows of an extended weight; the columns without B become 0.
        """
        state = getattr(weight, "quant_state", None)
        if state is None:
            plain = weight
        else:
            import bitsandbytes as bnb

            plain = bnb.functional.dequantize_4bit(weight.data, state).view(state.shape)
        inner = plain.shape[1]
        out[:, :inner].copy_(plain)
        out[:, inner:].zero_()
        if b is not None:
            start = inner + column
            out[:, start : start + b.shape[1]].copy_(b)

    @staticmethod
    def norm(
        x: Tensor, weight: Tensor, bias: Tensor | None, layer_norm: bool, eps: float, out: Tensor
    ) -> None:
        """LayerNorm or RMSNorm of the rows of `x`, into `out` [tokens, K], a view."""
        hat, _ = _normalized(x.float(), eps, layer_norm)
        result = hat * weight.float()
        out.copy_(result if bias is None else result + bias.float())

    @staticmethod
    def norm_backward(
        x: Tensor, weight: Tensor, layer_norm: bool, eps: float, grad: Tensor, residual: Tensor
    ) -> None:
        """Add the norm's input gradient to `residual` in place; `grad` is that of its output."""
        hat, rstd = _normalized(x.float(), eps, layer_norm)
        slope = grad.float() * weight.float()
        inner = slope - hat * (slope * hat).mean(-1, keepdim=True)
        if layer_norm:
            inner -= slope.mean(-1, keepdim=True)
        residual.copy_(residual.float() + inner * rstd)

    def lora_in(
        self, x: Tensor, inner: int, a: Tensor, members: int, scale: float, drop: Dropout
    ) -> None:
        """Write `scale * dropout(x) A^T` of all members behind x's `inner` columns, then zeros."""
        rank, scale = a.shape[0] // members, scale * drop.keep_scale
        x[:, inner + len(a) :].zero_()
        if not drop.threshold:
            torch.mul(x[:, :inner] @ a.t(), scale, out=x[:, inner : inner + len(a)])
            return
        masks = self._masks[drop.seed] = make_masks(len(x), inner, members, drop, x.device)
        for member, mask in enumerate(masks):
            rows = slice(member * rank, (member + 1) * rank)
            to = x[:, inner + rows.start : inner + rows.stop]
            torch.mul((x[:, :inner] * mask) @ a[rows].t(), scale, out=to)

    def lora_in_backward(
        self,
        x: Tensor,
        grad: Tensor,
        a: Tensor,
        a_grad: Tensor,
        *,
        members: int,
        scale: float,
        drop: Dropout,
    ) -> None:
        """From the gradient of an extended input: A's part is added to its first K columns.

        Args:
            x: Extended input as it was.
            grad: Gradient of the extended input, changed in place.
            a: [members * rank, K].
            a_grad: float32, like `a`; added to.
            members: LoRA layers that share the input.
            scale: LoRA's alpha / rank.
            drop: As in the forward pass, whose masks are used up here.
        """
        rank, inner = a.shape[0] // members, a.shape[1]
        u_grad, to = grad[:, inner : inner + len(a)] * (scale * drop.keep_scale), grad[:, :inner]
        if not drop.threshold:
            a_grad += u_grad.t() @ x[:, :inner]
            to += u_grad @ a
            return
        masks = self._masks.pop(drop.seed, None)
        if masks is None:
            masks = make_masks(len(x), inner, members, drop, x.device)
        for member, mask in enumerate(masks):
            rows = slice(member * rank, (member + 1) * rank)
            a_grad[rows] += u_grad[:, rows].t() @ (x[:, :inner] * mask)
            to += (u_grad[:, rows] @ a[rows]).mul_(mask)

    @staticmethod
    def lora_out_backward(grad: Tensor, u: Tensor, b_grad: Tensor) -> None:
        """Add `grad^T u` to B's gradient: [tokens, n], [tokens, r] -> float32[n, r]."""
        b_grad += grad.t() @ u

    @staticmethod
    def rope(qkv: Tensor, heads: Heads, cos: Tensor, sin: Tensor, inverse: bool) -> None:
        """Rotate q and k in place by tables [tokens, rotated / 2]; `inverse` is the gradient."""
        q, k, _ = heads.split(qkv)
        half = heads.rotated // 2
        s = -sin if inverse else sin
        for part in (q, k):
            first, second = part[..., :half].float(), part[..., half : heads.rotated].float()
            c1, s1 = cos[:, None], s[:, None]
            turned = first * c1 - second * s1, second * c1 + first * s1
            part[..., :half], part[..., half : heads.rotated] = turned

    @staticmethod
    def attention(qkv: Tensor, heads: Heads, bounds: Bounds, out: Tensor, lse: Tensor) -> None:
        """Causal attention inside each sample, into `out` [tokens, queries * size].

        `lse` [queries, tokens] is for the backward pass of the GPU kernel; it is not used here.
        """
        cuts = bounds.cu_seqlens.tolist()
        for start, stop in pairwise(cuts):
            out[start:stop] = _attend(qkv[start:stop], heads)

    @staticmethod
    def attention_backward(
        qkv: Tensor,
        heads: Heads,
        bounds: Bounds,
        out: Tensor,
        lse: Tensor,
        grad: Tensor,
        to: Tensor,
    ) -> None:
        """Gradient of q, k, v into `to` [tokens, width] from `grad` of `out`."""
        cuts = bounds.cu_seqlens.tolist()
        for start, stop in pairwise(cuts):
            with torch.enable_grad():
                part = qkv[start:stop].detach().requires_grad_()
                (to[start:stop],) = torch.autograd.grad(
                    _attend(part, heads), part, grad[start:stop]
                )

    @staticmethod
    def swiglu(gate_up: Tensor, out: Tensor) -> None:
        """silu(gate) * up from [tokens, 2 F] into `out` [tokens, F]."""
        gate, up = gate_up.chunk(2, -1)
        out.copy_(torch.nn.functional.silu(gate.float()) * up.float())

    @staticmethod
    def swiglu_backward(gate_up: Tensor, grad: Tensor) -> None:
        """Replace gate and up by their gradients, in place."""
        gate, up = (part.float() for part in gate_up.chunk(2, -1))
        share = torch.sigmoid(gate)
        slopes = up * share * (1 + gate * (1 - share)), gate * share
        for part, slope in zip(gate_up.chunk(2, -1), slopes, strict=True):
            part.copy_(grad.float() * slope)

    @staticmethod
    def cross_entropy(logits: Tensor, targets: Tensor, scale: float, losses: Tensor) -> None:
        """Losses of each row into `losses`; `logits` become their gradient times `scale`."""
        full = logits.float()
        losses.copy_(torch.nn.functional.cross_entropy(full, targets, reduction="none"))
        slope = torch.softmax(full, -1)
        slope[torch.arange(len(targets), device=targets.device), targets] -= 1
        logits.copy_(slope * scale)


def _normalized(x: Tensor, eps: float, layer_norm: bool) -> tuple[Tensor, Tensor]:
    """Normalised rows and one over their deviation."""
    centred = x - x.mean(-1, keepdim=True) if layer_norm else x
    rstd = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return centred * rstd, rstd


def make_masks(
    rows: int, columns: int, members: int, drop: Dropout, device: torch.device
) -> list[Tensor]:
    """One mask a member, bool[rows, columns], true where the value is kept."""
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
