"""Forward and backward pass of one decoder layer, with derivatives written out instead of autograd.

    x ─ norm1 ─ qkv ─ rope ─ attention ─ out ─ + ─ middle ─ norm2 ─ gate_up ─ act ─ down ─ + ─ y
    └──────────────────────────────────────────┘   └───────────────────────────────────────┘

`LayerWeights` states what a family's layer adds or leaves out: norms of heads and of the branches'
outputs, both branches side by side, an MLP without gates.

Activation checkpointing by hand: the forward pass saves the layer's input x (`buffers.Stream`) and
fills `Saved`. A *kept* layer has a `Saved` of its own, so its backward pass repeats only what is
cheap (dequantization, norms, activation); the other layers share one, and their backward pass
computes it again first. LoRA's first products (`Products.sides`) are kept by every layer: they are
small, and computing them again would read all inputs again.

All buffers are allocated once: memory is known before the first step and cannot fragment.

The base is frozen: no gradient of a weight, a bias or a norm is ever computed.
"""

from dataclasses import dataclass

from torch import Tensor

from tasks.training.fast.layer.attention import AttentionBranch
from tasks.training.fast.layer.mlp import MlpBranch
from tasks.training.fast.layer.products import Products
from tasks.training.fast.layer.state import Saved, chunks


@dataclass(frozen=True)
class LayerPass:
    """One decoder layer applied to one window.

    Attributes:
        products: Its linear layers.
        saved: Buffers of its activations, cut to the window.
    """

    products: Products
    saved: Saved

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Write the layer's output for the residual stream `x` into `y`, which may be `x`.

        With `Scratch.wide` the sums are made there: `x` and `y` are its roundings, for the backward
        pass.
        """
        attention, mlp = AttentionBranch(self.products, self.saved), self._mlp
        attention.forward(x)
        for part in self._chunks(x):
            # in parallel a chunk of x is read once more, before it is written as y
            mlp.forward(x, y, part)

    def backward(self, x: Tensor, grad: Tensor, *, kept: bool, more: bool) -> None:
        """Turn the output's gradient into the input's, in place; add to LoRA's gradients.

        Args:
            x: The layer's input [tokens, hidden].
            grad: [tokens, hidden]; the residual connections leave it in place, the branches add.
            kept: Whether `saved` holds this layer's activations; else they are computed again.
            more: Whether an earlier layer needs a gradient; if not, and without LoRA on q, k and v,
                the gradient of x is not computed.
        """
        attention, mlp = AttentionBranch(self.products, self.saved), self._mlp
        layer = self.products.layer
        if not kept:
            attention.forward(x, again=True)
        if layer.parallel:  # both branches read the output's gradient
            attention.backward_out(grad)
        for part in self._chunks(x):
            mlp.backward(x, grad, part, kept=kept)
        if not layer.parallel:
            attention.backward_out(grad)
        if more or layer.qkv.loras:
            attention.backward_qkv(x, grad, kept=kept)

    @property
    def _mlp(self) -> MlpBranch:
        return MlpBranch(self.products, self.saved)

    def _chunks(self, x: Tensor) -> list[slice]:
        return chunks(len(x), self.products.call.chunk)
