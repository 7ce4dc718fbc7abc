"""The MLP branch of a decoder layer, in chunks of `Call.chunk` tokens.

Chunks bound its buffers in long windows. Where products run in 16 bit, kept gate and up are stored
in 8 bit: they are half of a layer's activations.
"""

from dataclasses import dataclass

from torch import Tensor

from tasks.training.fast.layer.products import Products
from tasks.training.fast.layer.state import DOWN, GATE_UP, Saved, rows
from tasks.training.fast.ops.operands import GateUpLora, Packed


@dataclass(frozen=True)
class MlpBranch:
    """The MLP of one layer in one window.

    Attributes:
        products: The layer's linear layers.
        saved: Its activations.
    """

    products: Products
    saved: Saved

    def forward(self, x: Tensor, y: Tensor, part: slice) -> None:
        """Write the chunk `part` of the layer's output into `y`, from the layer's input `x`."""
        products, wide = self.products, self.products.wide(part)
        normed = self._input(x, part, wide)
        products.lora_in(GATE_UP, normed, part.start)
        products.forward(GATE_UP, normed, self._gate_up(part))
        act = self._activate(part)
        middle, branch = self.saved.middle[part], self._branch(part)
        products.add_branch(DOWN, act, middle, y[part], branch, wide)

    def backward(self, x: Tensor, grad: Tensor, part: slice, *, kept: bool) -> None:
        """One chunk: `grad` [tokens, hidden] becomes that of the MLP's input, in place."""
        products, layer, gate_up = self.products, self.products.layer, self._gate_up(part)
        normed, tokens = self._input(x, part), part.stop - part.start
        if not kept:
            products.lora_in(GATE_UP, normed, part.start, again=True)
            products.forward(GATE_UP, normed, gate_up)
        slope = products.branch_grad(layer.after2, self._branch(part), grad[part])
        act_grad = rows(products.scratch.act_grad, tokens, layer.down.width)
        products.input_grad(DOWN, slope, act_grad)
        products.lora_out_backward(DOWN, slope, part.start)
        products.call.ops.activate_backward(
            layer.activation,
            gate_up,
            act_grad,
            products.lora(DOWN, part.start) if layer.down.loras else None,
            layer.down.a_grad,
            self._gate_up_lora(part),
            self._packed(part),
        )
        back = rows(products.scratch.grad, tokens, layer.gate_up.width)
        products.input_grad(GATE_UP, gate_up, back)
        products.lora_in_backward(GATE_UP, normed, back, part.start)
        products.normalize_backward(layer.norm2, self._stream(x)[part], back, grad[part])

    def _stream(self, x: Tensor) -> Tensor:
        """What the MLP's norm reads."""
        return x if self.products.layer.parallel else self.saved.middle

    def _input(self, x: Tensor, part: slice, wide: Tensor | None = None) -> Tensor:
        """The extended input of gate and up, without LoRA's columns."""
        products, stream = self.products, self._stream(x)[part]
        if wide is not None and not products.layer.parallel:  # it has attention's output
            stream = wide
        normed = rows(products.scratch.normed2, len(stream), products.layer.gate_up.width)
        products.normalize(products.layer.norm2, stream, normed)
        return normed

    def _activate(self, part: slice) -> Tensor:
        """The extended input of down."""
        products, gate_up, down = self.products, self._gate_up(part), self.products.layer.down
        act = rows(products.scratch.act, len(gate_up), down.width)
        lora = products.lora(DOWN, part.start) if down.loras else None
        side, form = products.sides[DOWN][part], products.layer.activation
        products.call.ops.activate(form, gate_up, act, lora, side, self._packed(part))
        return act

    def _branch(self, part: slice) -> Tensor | None:
        return None if self.saved.branch2 is None else self.saved.branch2[part]

    def _gate_up(self, part: slice) -> Tensor:
        """Gate and up of a chunk, before the backward pass replaces them by their gradients."""
        kept, tokens = self.saved.gate_up, part.stop - part.start
        if isinstance(kept, Tensor):
            return kept[part]
        return rows(self.products.scratch.gate_up, tokens, self.products.layer.gate_up.rows)

    def _packed(self, part: slice) -> Packed | None:
        """The 8-bit copy of gate and up of a chunk, for a layer that keeps one."""
        kept = self.saved.gate_up
        return kept[part] if isinstance(kept, Packed) else None

    def _gate_up_lora(self, part: slice) -> GateUpLora:
        """LoRA of gate and up; without gates, of what is activated."""
        group = self.products.layer.gate_up
        columns = [-1 if m.lora is None else m.lora * group.rank for m in group.members]
        grads = [member.b_grad for member in group.members]
        if not self.products.layer.activation.gated:
            columns, grads = [*columns, -1], [*grads, None]
        elif len(columns) == 1:  # one layer for both: they share A
            columns *= 2
            grads = [None, None] if grads[0] is None else list(grads[0].chunk(2))
        (gate, up), (gate_grad, up_grad) = columns, grads
        side = self.products.sides[GATE_UP][part]
        return GateUpLora(side, group.rank, gate, up, gate_grad, up_grad)
