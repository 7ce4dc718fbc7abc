"""What a decoder layer reads and writes in one window: activations, shared buffers, inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tasks.training.fast.ops.operands import Bounds, Heads, Packed

QKV, OUT, GATE_UP, DOWN = range(4)  # kinds of groups, as indexes of `LayerWeights.groups`
BRANCH_ENDS = (OUT, DOWN)  # whose output is added to the residual stream


@dataclass(frozen=True)
class Saved:
    """Activations that the backward pass needs and that are expensive to compute again.

    Attributes:
        qkv: [tokens, heads.width], q and k rotated.
        out: Attention's output, extended: [tokens, out.width].
        lse: float32[queries, tokens], log-sum-exp of attention's scores.
        middle: [tokens, hidden], the residual stream between attention and MLP.
        gate_up: [tokens, 2 F] (F without gates) of a kept layer in 32 bit, in 8 bit in other
            precisions; None for the other layers, which use `Scratch.gate_up`.
        unnormed: q, k and v before the norms of heads, [tokens, heads.width]; None without norms.
        branch1: Attention's output before the norm after it, [tokens, hidden]; None without one.
        branch2: The MLP's, likewise, but of this layer alone even if it is not kept: computing it
            again takes a large product.
    """

    qkv: Tensor
    out: Tensor
    lse: Tensor
    middle: Tensor
    gate_up: Tensor | Packed | None
    unnormed: Tensor | None = None
    branch1: Tensor | None = None
    branch2: Tensor | None = None


@dataclass(frozen=True)
class Scratch:
    """Buffers that all layers share; flat, as widths differ by layer (see `rows`).

    Attributes:
        normed1: Extended input of qkv, all tokens.
        normed2: Extended input of gate_up, one chunk.
        act: Extended input of down, one chunk; in the backward pass, a gradient in 8 bit.
        gate_up: Gate and up, then their gradients, one chunk.
        grad: Gradient of an extended input, all tokens.
        act_grad: Gradient of `act`, one chunk.
        qkv_grad: Gradient of q, k and v, all tokens.
        weight: Extended weight of any group.
        row_scales: float32[tokens], scales of the gradient in 8 bit.
        branch_grad: Gradient of a branch before the norm after it, all tokens; empty without one.
        wide: float32, the residual stream of the forward pass, all tokens; empty if it is summed in
            the precision of the others.
    """

    normed1: Tensor
    normed2: Tensor
    act: Tensor
    gate_up: Tensor
    grad: Tensor
    act_grad: Tensor
    qkv_grad: Tensor
    weight: Tensor
    row_scales: Tensor
    branch_grad: Tensor
    wide: Tensor


@dataclass(frozen=True)
class Call:
    """Values that all layers share in one window.

    Attributes:
        ops: The operations, `TorchOps` or `TritonOps`.
        heads: Shape of attention.
        tokens: Of the window.
        bounds: Of the samples, by sliding window.
        tables: cos and sin of each rotation, float32[tokens, rotated / 2].
        flat: All LoRA parameters, rounded to the precision of the products.
        scale: LoRA's alpha / rank.
        rate: LoRA's dropout rate.
        seed: Of the window's dropout.
        seeds: int32, the seed of each layer, group and chunk: see `seed_place`.
        chunk: Tokens per chunk of the MLP.
    """

    ops: Any
    heads: Heads
    tokens: int
    bounds: Mapping[int, Bounds]
    tables: Mapping[str, tuple[Tensor, Tensor]]
    flat: Tensor
    scale: float
    rate: float
    seed: int
    seeds: Tensor
    chunk: int

    def seed_place(self, number: int, kind: int, start: int) -> int:
        """Index in `seeds` of the group `kind` of a layer, for the chunk from token `start` on."""
        each = len(chunks(self.tokens, self.chunk))
        return (number * 4 + kind) * each + start // self.chunk


def rows(buffer: Tensor, tokens: int, width: int) -> Tensor:
    """The first values of a flat buffer as [tokens, width]."""
    return buffer[: tokens * width].view(tokens, width)


def chunks(tokens: int, size: int) -> list[slice]:
    """Cut `tokens` into slices of at most `size`."""
    return [slice(i, min(i + size, tokens)) for i in range(0, tokens, size)]
