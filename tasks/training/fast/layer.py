"""Forward and backward pass of one decoder layer, with derivatives written out instead of autograd.

    x ─ norm1 ─ qkv ─ rope ─ attention ─ out ─ + ─ middle ─ norm2 ─ gate_up ─ swiglu ─ down ─ + ─ y
    └──────────────────────────────────────────┘   └──────────────────────────────────────────┘

Activation checkpointing by hand: the forward pass saves the layer's input x (`step._Stream`) and
fills `Saved`. A *kept* layer has a `Saved` of its own, so its backward pass repeats only what is
cheap (dequantization, norms, swiglu); the other layers share one, and their backward pass computes
it again first. Where products run in 16 bit, kept gate and up are stored in 8 bit: they are half of
a layer's activations. LoRA's first products (`LayerPass.sides`) are kept by every layer: they are
small, and computing them again would read all inputs again.

Each of the four groups (`qkv`, `out`, `gate_up`, `down`; index `kind`) is one product of an
extended input and an extended weight, see `operands`. A weight is dequantized right before its
product, into one buffer that all share. All buffers are allocated once: memory is known before the
first step and cannot fragment.

The backward pass's products with frozen weights can run in 8 bit (`LayerPass.scales`), see
`torch_weights`; LoRA's do not.

The MLP runs in chunks of `Call.chunk` tokens, which bounds its buffers in long windows.

The base is frozen: no gradient of a weight, a bias or a norm is ever computed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.training.fast.head_norms import normalize, normalize_backward
from tasks.training.fast.model import LayerWeights, LinearGroup, LinearMember
from tasks.training.fast.operands import (
    AttentionTensors,
    Bounds,
    GateUpLora,
    Heads,
    LoraInput,
    NormWeights,
    Packed,
    Rotated,
    Rounded,
    make_dropout,
    mix,
)

QKV, OUT, GATE_UP, DOWN = range(4)  # kinds of groups, as indexes of `LayerWeights.groups`
BRANCH_ENDS = (OUT, DOWN)  # whose output is added to the residual stream


@dataclass(frozen=True)
class Saved:
    """Activations that the backward pass needs and that are expensive to compute again.

    Attributes:
        unnormed: q, k and v before the norms of heads, [tokens, heads.width]; None without norms.
        qkv: [tokens, heads.width], q and k rotated.
        out: Attention's output, extended: [tokens, out.width].
        lse: float32[queries, tokens], log-sum-exp of attention's scores.
        middle: [tokens, hidden], the residual stream between attention and MLP.
        gate_up: [tokens, 2 F] of a kept layer in 32 bit, in 8 bit in other precisions; None for
            the other layers, which use `Scratch.gate_up`.
    """

    qkv: Tensor
    out: Tensor
    lse: Tensor
    middle: Tensor
    gate_up: Tensor | Packed | None
    unnormed: Tensor | None = None


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


@dataclass(frozen=True)
class Call:
    """Values that all layers share in one window.

    Attributes:
        ops: The operations, `TorchOps` or `TritonOps`.
        heads: Shape of attention.
        bounds: Of the samples.
        cos: float32[tokens, rotated / 2].
        sin: float32[tokens, rotated / 2].
        flat: All LoRA parameters, rounded to the precision of the products.
        scale: LoRA's alpha / rank.
        rate: LoRA's dropout rate.
        seed: Of the window's dropout.
        seeds: int32, the seed of each layer, group and chunk: see `seed_place`.
        chunk: Tokens per chunk of the MLP.
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
    seeds: Tensor
    chunk: int

    def seed_place(self, number: int, kind: int, start: int) -> int:
        """Index in `seeds` of the group `kind` of a layer, for the chunk from token `start` on."""
        each = len(chunks(len(self.cos), self.chunk))
        return (number * 4 + kind) * each + start // self.chunk


@dataclass(frozen=True)
class LayerPass:
    """One decoder layer applied to one window.

    Attributes:
        layer: Weights and LoRA.
        number: Index of the layer, part of its dropout seeds.
        call: The window.
        saved: Buffers of its activations, cut to the window.
        scratch: Shared buffers.
        sides: LoRA's first product of each group, [tokens, members * rank], from the forward pass.
        scales: float32[K] of each group's weight in 8 bit; None: the backward pass's products run
            in the precision of the others.
    """

    layer: LayerWeights
    number: int
    call: Call
    saved: Saved
    scratch: Scratch
    sides: tuple[Tensor, Tensor, Tensor, Tensor]
    scales: tuple[Tensor, ...] | None

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Write the layer's output for the residual stream `x` into `y`, which may be `x`."""
        self._attend(x)
        for part in chunks(len(x), self.call.chunk):
            # in parallel a chunk of x is read once more, before it is written as y
            normed = self._gate_up_in(x, part)
            self._lora_in(GATE_UP, normed, part.start)
            product(self.layer.gate_up, normed, self._load(GATE_UP), self._gate_up(part))
            act = self._activate(part)
            self._add(self.saved.middle[part], DOWN, act, y[part])

    def backward(self, x: Tensor, grad: Tensor, *, kept: bool, more: bool) -> None:
        """Turn the output's gradient into the input's, in place; add to LoRA's gradients.

        Args:
            x: The layer's input [tokens, hidden].
            grad: [tokens, hidden]; the residual connections leave it in place, the branches add.
            kept: Whether `saved` holds this layer's activations; else they are computed again.
            more: Whether an earlier layer needs a gradient; if not, and without LoRA on q, k and v,
                the gradient of x is not computed.
        """
        if not kept:
            self._attend(x, again=True)
        if self.layer.parallel:  # both branches read the output's gradient
            self._out_backward(grad)
        for part in chunks(len(x), self.call.chunk):
            self._mlp_backward(x, grad, part, kept=kept)
        if not self.layer.parallel:
            self._out_backward(grad)
        if more or self.layer.qkv.loras:
            self._qkv_backward(x, grad, kept=kept)

    def _attend(self, x: Tensor, *, again: bool = False) -> None:
        """The attention block: fills `saved` except `gate_up`; `again`: in the backward pass."""
        call, saved = self.call, self.saved
        normed = self._qkv_in(x)
        self._lora_in(QKV, normed, again=again)
        if saved.unnormed is None or self.layer.head_norms is None:
            product(self.layer.qkv, normed, self._load(QKV), saved.qkv)
        else:
            product(self.layer.qkv, normed, self._load(QKV), saved.unnormed)
            normalize(saved.unnormed, call.heads, self.layer.head_norms, saved.qkv)
        if self.layer.rotates:
            call.ops.rope(saved.qkv, call.heads, call.cos, call.sin, False)
        call.ops.attention(self._attention())
        self._lora_in(OUT, saved.out, again=again)
        self._add(x, OUT, saved.out, saved.middle)

    def _add(self, stream: Tensor, kind: int, x: Tensor, to: Tensor) -> None:
        """Write the residual stream plus a branch, whose last group is `kind`."""
        scale, bias = self.layer.branch_scale, self.layer.groups[kind].bias
        torch.addmm(stream, x, self._load(kind).t(), alpha=scale, out=to)
        if bias is not None:
            to.add_(bias.to(to.dtype), alpha=scale)

    def _attention(self) -> AttentionTensors:
        saved, inner = self.saved, self.layer.out.inner
        heads, bounds = self.call.heads, self.call.bounds
        return AttentionTensors(saved.qkv, saved.out[:, :inner], saved.lse, heads, bounds)

    def _mlp_backward(self, x: Tensor, grad: Tensor, part: slice, *, kept: bool) -> None:
        """One chunk of the MLP: `grad` [tokens, hidden] becomes that of its input, in place."""
        layer, gate_up = self.layer, self._gate_up(part)
        normed, tokens = self._gate_up_in(x, part), part.stop - part.start
        if not kept:
            self._lora_in(GATE_UP, normed, part.start, again=True)
            product(layer.gate_up, normed, self._load(GATE_UP), gate_up)
        act_grad = rows(self.scratch.act_grad, tokens, layer.down.width)
        self._input_grad(DOWN, grad[part], act_grad)
        self._lora_out_backward(DOWN, grad[part], part.start)
        self.call.ops.swiglu_backward(
            gate_up,
            act_grad,
            self._lora(DOWN, part.start) if layer.down.loras else None,
            layer.down.a_grad,
            self._gate_up_lora(part),
            self._packed(part),
        )
        back = rows(self.scratch.grad, tokens, layer.gate_up.width)
        self._input_grad(GATE_UP, gate_up, back)
        self._lora_in_backward(GATE_UP, normed, back, part.start)
        self._norm_backward(layer.norm2, self._mlp_input(x)[part], back, grad[part])

    def _out_backward(self, grad: Tensor) -> None:
        """From the gradient of `middle` to those of q, k and v, before the rotation."""
        call, saved, group = self.call, self.saved, self.layer.out
        back = rows(self.scratch.grad, len(grad), group.width)
        self._input_grad(OUT, grad, back)
        self._lora_out_backward(OUT, grad)
        self._lora_in_backward(OUT, saved.out, back)
        to = self._qkv_grad()
        call.ops.attention_backward(self._attention(), back[:, : group.inner], to)
        if self.layer.rotates:
            call.ops.rope(to, call.heads, call.cos, call.sin, True)
        if saved.unnormed is not None and self.layer.head_norms is not None:
            normalize_backward(saved.unnormed, call.heads, self.layer.head_norms, to)

    def _qkv_backward(self, x: Tensor, grad: Tensor, *, kept: bool) -> None:
        group = self.layer.qkv
        # a recomputed layer has just filled `normed1`; for a kept one it holds another layer's
        normed = self._qkv_in(x) if kept else rows(self.scratch.normed1, len(x), group.width)
        back = rows(self.scratch.grad, len(x), group.width)
        self._input_grad(QKV, self._qkv_grad(), back)
        self._lora_out_backward(QKV, self._qkv_grad())
        self._lora_in_backward(QKV, normed, back)
        self._norm_backward(self.layer.norm1, x, back, grad)

    def _qkv_in(self, x: Tensor) -> Tensor:
        """The extended input of q, k and v, without LoRA's columns."""
        normed = rows(self.scratch.normed1, len(x), self.layer.qkv.width)
        self._normalize(self.layer.norm1, x, normed)
        return normed

    def _mlp_input(self, x: Tensor) -> Tensor:
        """What the MLP's norm reads."""
        return x if self.layer.parallel else self.saved.middle

    def _gate_up_in(self, x: Tensor, part: slice) -> Tensor:
        """The extended input of gate and up, without LoRA's columns."""
        stream = self._mlp_input(x)[part]
        normed = rows(self.scratch.normed2, len(stream), self.layer.gate_up.width)
        self._normalize(self.layer.norm2, stream, normed)
        return normed

    def _activate(self, part: slice) -> Tensor:
        """The extended input of down."""
        gate_up, down = self._gate_up(part), self.layer.down
        act = rows(self.scratch.act, len(gate_up), down.width)
        lora = self._lora(DOWN, part.start) if down.loras else None
        self.call.ops.swiglu(gate_up, act, lora, self.sides[DOWN][part], self._packed(part))
        return act

    def _gate_up(self, part: slice) -> Tensor:
        """Gate and up of a chunk, before the backward pass replaces them by their gradients."""
        kept, tokens = self.saved.gate_up, part.stop - part.start
        if isinstance(kept, Tensor):
            return kept[part]
        return rows(self.scratch.gate_up, tokens, self.layer.gate_up.rows)

    def _packed(self, part: slice) -> Packed | None:
        """The 8-bit copy of gate and up of a chunk, for a layer that keeps one."""
        kept = self.saved.gate_up
        return kept[part] if isinstance(kept, Packed) else None

    def _gate_up_lora(self, part: slice) -> GateUpLora:
        group = self.layer.gate_up
        columns = [-1 if m.lora is None else m.lora * group.rank for m in group.members]
        grads = [member.b_grad for member in group.members]
        if len(columns) == 1:  # one layer for both: they share A
            columns *= 2
            grads = [None, None] if grads[0] is None else list(grads[0].chunk(2))
        (gate, up), (gate_grad, up_grad) = columns, grads
        return GateUpLora(self.sides[GATE_UP][part], group.rank, gate, up, gate_grad, up_grad)

    def _qkv_grad(self) -> Tensor:
        return rows(self.scratch.qkv_grad, len(self.saved.qkv), self.call.heads.width)

    def _load(self, kind: int) -> Tensor:
        """Dequantize a group's weights and add each member's B; returns the extended weight."""
        group = self.layer.groups[kind]
        out = rows(self.scratch.weight, group.rows, group.width)
        for member in group.members:
            self.call.ops.load_weight(member.weight, *self._b(group, member), out[member.rows])
        return out

    def _load_rotated(self, kind: int, scales: Tensor) -> Rotated:
        """A group's weight in 8 bit, in the same buffer."""
        group = self.layer.groups[kind]
        size, extra = group.inner * group.rows, (group.width - group.inner) * group.rows
        values = self.scratch.weight.view(torch.int8)[:size].view(group.inner, group.rows)
        tail = self.scratch.weight[-extra:] if extra else self.scratch.weight[:0]
        out = Rotated(values, scales, tail.view(group.rows, group.width - group.inner))
        for member in group.members:
            self.call.ops.load_rotated(member.weight, *self._b(group, member), out, member.rows)
        return out

    def _b(self, group: LinearGroup, member: LinearMember) -> tuple[Tensor | None, int]:
        """A member's B, and its first column among LoRA's, which keeps the members apart."""
        if member.lora is None:
            return None, 0
        size = (member.rows.stop - member.rows.start) * group.rank
        b = self.call.flat[member.b_at : member.b_at + size].view(-1, group.rank)
        return b, member.lora * group.rank

    def _input_grad(self, kind: int, grad: Tensor, back: Tensor) -> None:
        """Gradient of a group's extended input, except A's part, from that of its output."""
        if self.scales is None:
            torch.mm(grad, self._load(kind), out=back)
        else:
            self._input_grad8(kind, grad, back, self.scales[kind])
        if kind in BRANCH_ENDS and self.layer.branch_scale != 1.0:
            back.mul_(self.layer.branch_scale)

    def _input_grad8(self, kind: int, grad: Tensor, back: Tensor, scales: Tensor) -> None:
        """Likewise, with products in 8 bit."""
        weight, ops = self._load_rotated(kind, scales), self.call.ops
        values = rows(self.scratch.act.view(torch.int8), *grad.shape)
        rounded, inner = Rounded(values, self.scratch.row_scales[: len(grad)]), len(weight.scales)
        ops.quantize(grad, weight.tail, rounded, back[:, inner:])
        ops.product8(rounded, weight, back[:, :inner])

    def _normalize(self, norm: NormWeights, x: Tensor, out: Tensor) -> None:
        """Write norm(x) into the first K columns of an extended input."""
        self.call.ops.norm(x, norm, out[:, : x.shape[1]])

    def _norm_backward(self, norm: NormWeights, x: Tensor, back: Tensor, grad: Tensor) -> None:
        """Add the norm's input gradient to `grad`; `back` is that of its extended output."""
        self.call.ops.norm_backward(x, norm, back[:, : x.shape[1]], grad)

    def _lora(self, kind: int, start: int) -> LoraInput:
        """A and dropout of a group for the chunk from token `start` on.

        The seed depends on window, layer, group and chunk, so that no mask repeats, and on nothing
        else: the backward pass gets the forward pass's mask again.
        """
        group = self.layer.groups[kind]
        size = group.loras * group.rank * group.inner
        a = self.call.flat[group.a_at : group.a_at + size].view(-1, group.inner)
        seed = mix(self.call.seed, self.number * 4 + kind, start)
        place = self.call.seed_place(self.number, kind, start)
        drop = make_dropout(self.call.rate, group.loras, seed, self.call.seeds, place)
        return LoraInput(a, group.loras, self.call.scale, drop)

    def _lora_in(self, kind: int, x: Tensor, start: int = 0, *, again: bool = False) -> None:
        """LoRA's columns of a group's extended input: computed, or `again` from `sides`."""
        group, side = self.layer.groups[kind], self.sides[kind][start : start + len(x)]
        if not group.loras:
            return
        if again:
            self.call.ops.restore(x, side, group.inner)
        else:
            self.call.ops.lora_in(x, self._lora(kind, start), side)

    def _lora_in_backward(self, kind: int, x: Tensor, grad_in: Tensor, start: int = 0) -> None:
        """Gradient of A; A's part is added to the first K columns of `grad_in`.

        Args:
            kind: Of the group.
            x: The input; LoRA's columns are not read.
            grad_in: Gradient of the extended input.
            start: First token of the chunk.
        """
        group = self.layer.groups[kind]
        if group.loras:
            self.call.ops.lora_in_backward(x, grad_in, self._lora(kind, start), group.a_grad)

    def _lora_out_backward(self, kind: int, grad_out: Tensor, start: int = 0) -> None:
        """Gradient of B of a group's members."""
        group = self.layer.groups[kind]
        side = self.sides[kind][start : start + len(grad_out)]
        for member in group.members:
            if member.lora is not None:
                u = side[:, member.lora * group.rank : (member.lora + 1) * group.rank]
                if kind in BRANCH_ENDS and self.layer.branch_scale != 1.0:
                    u = u * self.layer.branch_scale
                self.call.ops.lora_out_backward(grad_out[:, member.rows], u, member.b_grad)


def rows(buffer: Tensor, tokens: int, width: int) -> Tensor:
    """The first values of a flat buffer as [tokens, width]."""
    return buffer[: tokens * width].view(tokens, width)


def chunks(tokens: int, size: int) -> list[slice]:
    """Cut `tokens` into slices of at most `size`."""
    return [slice(i, min(i + size, tokens)) for i in range(0, tokens, size)]


def product(group: LinearGroup, x: Tensor, weight: Tensor, out: Tensor) -> None:
    """The linear layers of a group with their LoRA, from an extended input and weight."""
    if group.bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(group.bias.to(x.dtype), x, weight.t(), out=out)
