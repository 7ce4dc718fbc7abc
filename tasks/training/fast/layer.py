"""One decoder layer forward and backward, as functions over tensors, derivatives written out.

No autograd: a forward pass of a layer leaves its input behind and, where the layer is *kept*, the
four tensors that are expensive to get again; the backward pass computes the rest once more. Weights
are expanded from 4 bit into one buffer a group, which the recomputation and the gradient share. All
buffers are allocated once, so memory is known before the first step and cannot fragment.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.training.fast.model import Group, Layer, Norm
from tasks.training.fast.torch_ops import (
    Bounds,
    Dropout,
    Heads,
    make_dropout,
    mix,
)


@dataclass(frozen=True)
class Saved:
    """What a layer leaves for its backward pass; tensors of a kept layer are its own.

    Attributes:
        qkv: [tokens, width], rotated.
        out: Extended [tokens, ...], attention's output.
        lse: float32[queries, tokens].
        middle: [tokens, hidden], the residual stream between attention and MLP.
        gate_up: [tokens, 2 F].
    """

    qkv: Tensor
    out: Tensor
    lse: Tensor
    middle: Tensor
    gate_up: Tensor


@dataclass(frozen=True)
class Scratch:
    """Buffers that all layers share, flat; see `rows`.

    Attributes:
        normed1: Extended input of qkv, all tokens.
        normed2: Extended input of gate_up, one chunk.
        act: Extended input of down, one chunk.
        grad: Gradient of an extended input, all tokens.
        act_grad: As `act`.
        qkv_grad: Gradient of q, k and v, all tokens.
        weights: Extended weight of each group: qkv, out, gate_up, down.
    """

    normed1: Tensor
    normed2: Tensor
    act: Tensor
    grad: Tensor
    act_grad: Tensor
    qkv_grad: Tensor
    weights: tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Call:
    """What is the same for all layers of one window.

    Attributes:
        ops: The operations (kernels or PyTorch).
        heads: Shape of attention.
        bounds: Of the samples.
        cos: float32[tokens, rotated / 2].
        sin: Likewise.
        flat: All LoRA parameters in the precision of the products.
        scale: LoRA's alpha / rank.
        rate: LoRA's dropout.
        seed: Of the window's dropout.
        chunk: Tokens that the MLP takes at a time.
    """

    ops: Any
    heads: Heads
    bounds: Bounds
    cos: Tensor
    sin: Tensor
    flat: Tensor
    scale: float
    rate: float
    seed: int
    chunk: int


@dataclass(frozen=True)
class LayerPass:
    """One decoder layer meeting one window.

    Attributes:
        layer: Weights and LoRA.
        number: Its place in the model, for the dropout.
        call: The window.
        saved: Where its activations go; cut to the window.
        scratch: Shared buffers.
    """

    layer: Layer
    number: int
    call: Call
    saved: Saved
    scratch: Scratch

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Write the layer's output for the residual stream `x` into `y`, which may be `x`."""
        self._attend(x)
        weight = self._load(2)
        down = self._load(3)
        for part in chunks(len(x), self.call.chunk):
            product(self.layer.gate_up, self._gate_up_in(part), weight, self.saved.gate_up[part])
            act = self._activate(part)
            torch.addmm(self.saved.middle[part], act, down.t(), out=y[part])

    def backward(self, x: Tensor, grad: Tensor, *, kept: bool, more: bool) -> None:
        """Turn `grad` of the output into that of the input, in place; add up LoRA's gradients.

        Args:
            x: The layer's input [tokens, hidden].
            grad: [tokens, hidden].
            kept: Whether `saved` still holds this layer's values; else they are made again.
            more: Whether a layer before this one needs a gradient.
        """
        if kept:
            self._load(0)
            self._load(1)
        else:
            self._attend(x)
        self._load(2)
        self._load(3)
        for part in chunks(len(x), self.call.chunk):
            self._mlp_backward(grad, part, kept=kept)
        self._out_backward(grad)
        if more or self.layer.qkv.loras:
            self._qkv_backward(x, grad, kept=kept)

    def _attend(self, x: Tensor) -> None:
        """The attention half: fills `saved` but for `gate_up`."""
        call, saved = self.call, self.saved
        product(self.layer.qkv, self._qkv_in(x), self._load(0), saved.qkv)
        call.ops.rope(saved.qkv, call.heads, call.cos, call.sin, False)
        inner = self.layer.out.inner
        call.ops.attention(saved.qkv, call.heads, call.bounds, saved.out[:, :inner], saved.lse)
        self._lora_in(1, saved.out)
        torch.addmm(x, saved.out, self._load(1).t(), out=saved.middle)

    def _mlp_backward(self, grad: Tensor, part: slice, *, kept: bool) -> None:
        layer, gate_up, middle = self.layer, self.saved.gate_up[part], self.saved.middle[part]
        normed, tokens = self._gate_up_in(part), len(middle)
        if not kept:
            product(layer.gate_up, normed, self._weight(2), gate_up)
        act = self._activate(part)
        act_grad = rows(self.scratch.act_grad, tokens, layer.down.width)
        torch.mm(grad[part], self._weight(3), out=act_grad)
        self._lora_backward(3, act, grad[part], act_grad, part.start)
        self.call.ops.swiglu_backward(gate_up, act_grad[:, : layer.down.inner])
        back = rows(self.scratch.grad, tokens, layer.gate_up.width)
        torch.mm(gate_up, self._weight(2), out=back)
        self._lora_backward(2, normed, gate_up, back, part.start)
        self._norm_backward(layer.norm2, middle, back, grad[part])

    def _out_backward(self, grad: Tensor) -> None:
        """From the middle of the residual stream to the gradients of q, k and v."""
        call, saved, group = self.call, self.saved, self.layer.out
        back = rows(self.scratch.grad, len(grad), group.width)
        torch.mm(grad, self._weight(1), out=back)
        self._lora_backward(1, saved.out, grad, back)
        out, out_grad, to = saved.out[:, : group.inner], back[:, : group.inner], self._qkv_grad()
        call.ops.attention_backward(
            saved.qkv, call.heads, call.bounds, out, saved.lse, out_grad, to
        )
        call.ops.rope(to, call.heads, call.cos, call.sin, True)

    def _qkv_backward(self, x: Tensor, grad: Tensor, *, kept: bool) -> None:
        group = self.layer.qkv
        normed = self._qkv_in(x) if kept else rows(self.scratch.normed1, len(x), group.width)
        back = rows(self.scratch.grad, len(x), group.width)
        torch.mm(self._qkv_grad(), self._weight(0), out=back)
        self._lora_backward(0, normed, self._qkv_grad(), back)
        self._norm_backward(self.layer.norm1, x, back, grad)

    def _qkv_in(self, x: Tensor) -> Tensor:
        """The extended input of q, k and v."""
        normed = rows(self.scratch.normed1, len(x), self.layer.qkv.width)
        self._normalize(self.layer.norm1, x, normed)
        self._lora_in(0, normed)
        return normed

    def _gate_up_in(self, part: slice) -> Tensor:
        """The extended input of gate and up."""
        middle = self.saved.middle[part]
        normed = rows(self.scratch.normed2, len(middle), self.layer.gate_up.width)
        self._normalize(self.layer.norm2, middle, normed)
        self._lora_in(2, normed, part.start)
        return normed

    def _activate(self, part: slice) -> Tensor:
        """The extended input of down."""
        gate_up = self.saved.gate_up[part]
        act = rows(self.scratch.act, len(gate_up), self.layer.down.width)
        self.call.ops.swiglu(gate_up, act[:, : self.layer.down.inner])
        self._lora_in(3, act, part.start)
        return act

    def _qkv_grad(self) -> Tensor:
        return rows(self.scratch.qkv_grad, len(self.saved.qkv), self.call.heads.width)

    def _weight(self, kind: int) -> Tensor:
        """A group's extended weight, as last loaded."""
        group = self.layer.groups[kind]
        return rows(self.scratch.weights[kind], group.rows, group.width)

    def _load(self, kind: int) -> Tensor:
        """Expand a group's weights and its B into its extended weight; returns that."""
        group, out = self.layer.groups[kind], self._weight(kind)
        for member in group.members:
            b, column = None, 0
            if member.lora is not None:
                size = (member.rows.stop - member.rows.start) * group.rank
                b = self.call.flat[member.b_at : member.b_at + size].view(-1, group.rank)
                column = member.lora * group.rank
            self.call.ops.load_weight(member.weight, b, column, out[member.rows])
        return out

    def _normalize(self, norm: Norm, x: Tensor, out: Tensor) -> None:
        """Write norm(x) into the first columns of an extended input."""
        self.call.ops.norm(
            x, norm.weight, norm.bias, norm.layer_norm, norm.eps, out[:, : x.shape[1]]
        )

    def _norm_backward(self, norm: Norm, x: Tensor, back: Tensor, grad: Tensor) -> None:
        self.call.ops.norm_backward(
            x, norm.weight, norm.layer_norm, norm.eps, back[:, : x.shape[1]], grad
        )

    def _dropout(self, kind: int, place: int) -> Dropout:
        seed = mix(self.call.seed, self.number * 4 + kind, place)
        return make_dropout(self.call.rate, self.layer.groups[kind].loras, seed)

    def _a(self, group: Group) -> Tensor:
        size = group.loras * group.rank * group.inner
        return self.call.flat[group.a_at : group.a_at + size].view(-1, group.inner)

    def _lora_in(self, kind: int, x: Tensor, place: int = 0) -> None:
        group = self.layer.groups[kind]
        if group.loras:
            drop = self._dropout(kind, place)
            self.call.ops.lora_in(
                x, group.inner, self._a(group), group.loras, self.call.scale, drop
            )

    def _lora_backward(
        self, kind: int, x: Tensor, grad_out: Tensor, grad_in: Tensor, place: int = 0
    ) -> None:
        """LoRA's gradients, and A's part of the input's, from both sides of a product."""
        group, ops = self.layer.groups[kind], self.call.ops
        if not group.loras:
            return
        for member in group.members:
            if member.lora is not None:
                start = group.inner + member.lora * group.rank
                u = x[:, start : start + group.rank]
                ops.lora_out_backward(grad_out[:, member.rows], u, member.b_grad)
        ops.lora_in_backward(
            x,
            grad_in,
            self._a(group),
            group.a_grad,
            members=group.loras,
            scale=self.call.scale,
            drop=self._dropout(kind, place),
        )


def rows(buffer: Tensor, tokens: int, width: int) -> Tensor:
    """The beginning of a flat buffer as [tokens, width]."""
    return buffer[: tokens * width].view(tokens, width)


def chunks(tokens: int, size: int) -> list[slice]:
    """Cut `tokens` into slices of at most `size`."""
    return [slice(i, min(i + size, tokens)) for i in range(0, tokens, size)]


def product(group: Group, x: Tensor, weight: Tensor, out: Tensor) -> None:
    """The linear layers of a group with their LoRA, from its extended input."""
    if group.bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(group.bias.to(x.dtype), x, weight.t(), out=out)
