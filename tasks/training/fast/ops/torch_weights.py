"""Frozen weights, and products with them in 8 bit, in PyTorch: the reference, and used on CPUs.

Products in 8 bit are those of the backward pass: gradient of the input [tokens, K] = grad
[tokens, n] W [n, K]. A few large values would set the scale of a whole row and leave the others a
few steps of it, so blocks of `GROUP` of the common dimension n are multiplied by a Hadamard matrix
first, which spreads them evenly. The matrix is orthogonal: rotating both operands does not change
the product. Then a gradient is rounded with one scale per token, a weight with one per input
feature. LoRA's part of the product, grad B, is not rounded.
"""

from typing import Any

import torch
from torch import Tensor

from tasks.core.progress import say
from tasks.training.fast.model.weights import FastModel
from tasks.training.fast.ops.operands import GROUP, TINY, Rotated, Rounded


class TorchWeights:
    """Operations on frozen weights, by PyTorch."""

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
    def load_rotated(weight: Any, b: Tensor | None, column: int, to: Rotated, part: slice) -> None:
        """Write a member's weight [n, K] and its B into a group's `Rotated`.

        Args:
            weight: As of `load_weight`.
            b: LoRA's B, or None.
            column: B's first column in the tail.
            to: The group's; its scales are set.
            part: The member's rows of the group's weight.
        """
        full = torch.empty(part.stop - part.start, len(to.scales), dtype=to.tail.dtype)
        full = full.to(to.tail.device)
        TorchWeights.load_weight(weight, None, 0, full)
        turned = rotate(full.t()) * (1 / to.scales)[:, None]
        to.values[:, part] = turned.round().clamp(-127, 127).to(torch.int8)
        to.tail[part] = 0
        if b is not None:
            to.tail[part, column : column + b.shape[1]] = b

    @staticmethod
    def add_product(wide: Tensor, x: Tensor, weight: Tensor, scale: float) -> None:
        """Add scale times x [tokens, K] times weight [n, K] transposed to float32[tokens, n]."""
        wide.add_(x.float() @ weight.float().t(), alpha=scale)

    @staticmethod
    def quantize(grad: Tensor, b: Tensor, to: Rounded, back: Tensor) -> None:
        """Rotate and round a gradient [tokens, n] into `to`; its product with B into `back`.

        Args:
            grad: Of a group's output.
            b: [n, columns], B of all members.
            to: Overwritten.
            back: [tokens, columns], LoRA's columns of the input's gradient.
        """
        turned = rotate(grad)
        to.scales.copy_(turned.abs().amax(-1) / 127)
        turned = (turned / to.scales[:, None].clamp(min=TINY)).round()
        to.values.copy_(turned.clamp(-127, 127).to(torch.int8))
        back.copy_(grad @ b)

    @staticmethod
    def product8(rounded: Rounded, weight: Rotated, out: Tensor) -> None:
        """The input's gradient [tokens, K] from both 8-bit operands."""
        product = rounded.values.float() @ weight.values.float().t()
        out.copy_(product * rounded.scales[:, None] * weight.scales)


def rotate(x: Tensor) -> Tensor:
    """Each `GROUP` features times a Hadamard matrix / 8, in float32; its own inverse."""
    blocks = x.float().reshape(*x.shape[:-1], -1, GROUP)
    return torch.matmul(blocks, hadamard(x.device)).flatten(-2)


def hadamard(device: torch.device) -> Tensor:
    """The symmetric, orthogonal matrix of `rotate`, float32[GROUP, GROUP]."""
    matrix = torch.ones(1, 1, device=device)
    while len(matrix) < GROUP:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return torch.div(matrix, GROUP**0.5)


def column_scales(weights: list[Any], inner: int, dtype: torch.dtype) -> Tensor:
    """Scales of `Rotated.values` [K] of the members' frozen weights, in `dtype` when expanded."""
    highest = torch.full((inner,), TINY, device=weights[0].device)
    for weight in weights:
        state = getattr(weight, "quant_state", None)
        n = (weight if state is None else state).shape[0]
        full = torch.empty(n, inner, dtype=dtype, device=weight.device)
        TorchWeights.load_weight(weight, None, 0, full)
        torch.maximum(highest, rotate(full.t()).abs().amax(-1), out=highest)
    return highest / 127


def model_scales(parts: FastModel) -> tuple[tuple[Tensor, ...], ...]:
    """`column_scales` of every layer's groups; none if a linear layer cannot be rotated."""
    for group in parts.layers[0].groups:
        if any((m.rows.stop - m.rows.start) % GROUP for m in group.members):
            say(
                "train: the backward pass runs without int8: a linear layer's outputs are no "
                f"multiple of {GROUP}"
            )
            return ()
    kind = parts.head.dtype
    return tuple(
        tuple(column_scales([m.weight for m in g.members], g.inner, kind) for g in layer.groups)
        for layer in parts.layers
    )
