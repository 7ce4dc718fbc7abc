"""The linear layers of one decoder layer with their LoRA: products forward and backward.

Each of the four groups (`qkv`, `out`, `gate_up`, `down`; index `kind`) is one product of an
extended input and an extended weight, see `operands`. A weight is dequantized right before its
product, into one buffer that all share.

The backward pass's products with frozen weights can run in 8 bit (`scales`), see `torch_weights`;
LoRA's do not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.training.fast.layer.state import BRANCH_ENDS, Call, Scratch, rows
from tasks.training.fast.model.weights import LayerWeights, LinearGroup, LinearMember
from tasks.training.fast.ops.dropout import make_dropout, mix
from tasks.training.fast.ops.operands import LoraInput, NormWeights, Rotated, Rounded


@dataclass(frozen=True)
class Products:
    """The linear layers of one decoder layer, in one window.

    Attributes:
        layer: Weights and LoRA.
        number: Index of the layer, part of its dropout seeds.
        call: The window.
        scratch: Shared buffers.
        sides: LoRA's first product of each group, [tokens, members * rank], from the forward pass.
        scales: float32[K] of each group's weight in 8 bit; None: the backward pass's products run
            in the precision of the others.
    """

    layer: LayerWeights
    number: int
    call: Call
    scratch: Scratch
    sides: tuple[Tensor, Tensor, Tensor, Tensor]
    scales: tuple[Tensor, ...] | None

    def forward(self, kind: int, x: Tensor, out: Tensor) -> None:
        """A group's linear layers with their LoRA, from an extended input."""
        group, weight = self.layer.groups[kind], self._load(kind)
        if group.bias is None:
            torch.mm(x, weight.t(), out=out)
        else:
            torch.addmm(group.bias.to(x.dtype), x, weight.t(), out=out)

    def add_branch(
        self,
        kind: int,
        x: Tensor,
        stream: Tensor,
        to: Tensor,
        branch: Tensor | None,
        wide: Tensor | None = None,
    ) -> None:
        """Write the residual stream plus the output of a branch, whose last group is `kind`.

        Args:
            kind: Of the group.
            x: Its extended input.
            stream: [tokens, hidden].
            to: Likewise; may be `stream`.
            branch: For the output before the norm after it; None if there is no such norm.
            wide: float32, used instead of `stream` and changed in place; `to` gets its rounding.
        """
        scale, bias = self.layer.branch_scale, self.layer.groups[kind].bias
        after = self.layer.after1 if kind == BRANCH_ENDS[0] else self.layer.after2
        source, into = (stream, to) if wide is None else (wide, wide)
        if after is not None and branch is not None:
            self.forward(kind, x, branch)
            self.call.ops.norm(branch, after, into, source)
        else:
            if wide is None:
                torch.addmm(stream, x, self._load(kind).t(), alpha=scale, out=to)
            else:
                self.call.ops.add_product(wide, x, self._load(kind), scale)
            if bias is not None:
                into.add_(bias.to(into.dtype), alpha=scale)
        if wide is not None:
            to.copy_(wide)

    def branch_grad(self, norm: NormWeights | None, branch: Tensor | None, grad: Tensor) -> Tensor:
        """Gradient of a branch's output from that of the stream, through the norm after it."""
        if norm is None or branch is None:
            return grad
        found = rows(self.scratch.branch_grad, *grad.shape)
        self.call.ops.norm_backward(branch, norm, grad, found, add=False)
        return found

    def input_grad(self, kind: int, grad: Tensor, back: Tensor) -> None:
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

    def normalize(self, norm: NormWeights | None, x: Tensor, out: Tensor) -> None:
        """Write norm(x), or x without a norm, into the first K columns of an extended input."""
        if norm is None:
            out[:, : x.shape[1]].copy_(x)
        else:
            self.call.ops.norm(x, norm, out[:, : x.shape[1]])

    def normalize_backward(
        self, norm: NormWeights | None, x: Tensor, back: Tensor, grad: Tensor
    ) -> None:
        """Add the norm's input gradient to `grad`; `back` is that of its extended output."""
        if norm is None:
            grad.add_(back[:, : x.shape[1]])
        else:
            self.call.ops.norm_backward(x, norm, back[:, : x.shape[1]], grad)

    def lora(self, kind: int, start: int) -> LoraInput:
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

    def lora_in(self, kind: int, x: Tensor, start: int = 0, *, again: bool = False) -> None:
        """LoRA's columns of a group's extended input: computed, or `again` from `sides`."""
        group, side = self.layer.groups[kind], self.sides[kind][start : start + len(x)]
        if not group.loras:
            return
        if again:
            self.call.ops.restore(x, side, group.inner)
        else:
            self.call.ops.lora_in(x, self.lora(kind, start), side)

    def lora_in_backward(self, kind: int, x: Tensor, grad_in: Tensor, start: int = 0) -> None:
        """Gradient of A; A's part is added to the first K columns of `grad_in`.

        Args:
            kind: Of the group.
            x: The input; LoRA's columns are not read.
            grad_in: Gradient of the extended input.
            start: First token of the chunk.
        """
        group = self.layer.groups[kind]
        if group.loras:
            self.call.ops.lora_in_backward(x, grad_in, self.lora(kind, start), group.a_grad)

    def lora_out_backward(self, kind: int, grad_out: Tensor, start: int = 0) -> None:
        """Gradient of B of a group's members."""
        group = self.layer.groups[kind]
        side = self.sides[kind][start : start + len(grad_out)]
        for member in group.members:
            if member.lora is not None:
                u = side[:, member.lora * group.rank : (member.lora + 1) * group.rank]
                if kind in BRANCH_ENDS and self.layer.branch_scale != 1.0:
                    u = u * self.layer.branch_scale
                self.call.ops.lora_out_backward(grad_out[:, member.rows], u, member.b_grad)

    def wide(self, part: slice) -> Tensor | None:
        """The chunk `part` of the residual stream in float32; None if there is none."""
        values, hidden = self.scratch.wide, self.layer.out.rows
        return rows(values, self.call.tokens, hidden)[part] if len(values) else None

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
