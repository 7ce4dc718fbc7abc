"""The attention branch of a decoder layer: norm, q k v, norms of heads, rotation, attention."""

from dataclasses import dataclass

from torch import Tensor

from tasks.training.fast.layer.products import Products
from tasks.training.fast.layer.state import OUT, QKV, Saved, rows
from tasks.training.fast.ops.operands import AttentionTensors


@dataclass(frozen=True)
class AttentionBranch:
    """Attention of one layer in one window.

    Attributes:
        products: The layer's linear layers.
        saved: Its activations.
    """

    products: Products
    saved: Saved

    def forward(self, x: Tensor, *, again: bool = False) -> None:
        """Fill `saved` except what the MLP fills; `again`: in the backward pass."""
        products, saved, norms = self.products, self.saved, self.products.layer.head_norms
        wide = None if again else products.wide(slice(0, len(x)))
        normed = self._input(x if wide is None else wide)
        products.lora_in(QKV, normed, again=again)
        if saved.unnormed is None or norms is None:
            products.forward(QKV, normed, saved.qkv)
            self._rotate(saved.qkv, inverse=False)
        else:
            products.forward(QKV, normed, saved.unnormed)
            call = products.call
            call.ops.norm_heads(saved.unnormed, norms, saved.qkv, call.heads, self._table)
        products.call.ops.attention(self._tensors())
        products.lora_in(OUT, saved.out, again=again)
        products.add_branch(OUT, saved.out, x, saved.middle, saved.branch1, wide)

    def backward_out(self, grad: Tensor) -> None:
        """From the gradient of `middle` to those of q, k and v, before rotation and norms."""
        products, saved, group = self.products, self.saved, self.products.layer.out
        grad = products.branch_grad(products.layer.after1, saved.branch1, grad)
        back = rows(products.scratch.grad, len(grad), group.width)
        products.input_grad(OUT, grad, back)
        products.lora_out_backward(OUT, grad)
        products.lora_in_backward(OUT, saved.out, back)
        to = self._qkv_grad()
        products.call.ops.attention_backward(self._tensors(), back[:, : group.inner], to)
        norms, call = products.layer.head_norms, products.call
        if saved.unnormed is None or norms is None:
            self._rotate(to, inverse=True)
        else:
            call.ops.norm_heads_backward(saved.unnormed, norms, to, call.heads, self._table)

    def backward_qkv(self, x: Tensor, grad: Tensor, *, kept: bool) -> None:
        """Add the gradient through q, k and v to that of the layer's input."""
        products, group = self.products, self.products.layer.qkv
        # a recomputed layer has just filled `normed1`; for a kept one it holds another layer's
        normed = self._input(x) if kept else rows(products.scratch.normed1, len(x), group.width)
        back = rows(products.scratch.grad, len(x), group.width)
        products.input_grad(QKV, self._qkv_grad(), back)
        products.lora_out_backward(QKV, self._qkv_grad())
        products.lora_in_backward(QKV, normed, back)
        products.normalize_backward(products.layer.norm1, x, back, grad)

    def _input(self, x: Tensor) -> Tensor:
        """The extended input of q, k and v, without LoRA's columns."""
        products = self.products
        normed = rows(products.scratch.normed1, len(x), products.layer.qkv.width)
        products.normalize(products.layer.norm1, x, normed)
        return normed

    @property
    def _table(self) -> tuple[Tensor, Tensor] | None:
        """cos and sin of the rotation, if the layer rotates."""
        rotation = self.products.layer.rotation
        return None if rotation is None else self.products.call.tables[rotation]

    def _rotate(self, qkv: Tensor, *, inverse: bool) -> None:
        """Rotate q and k in place, if the layer does."""
        call, table = self.products.call, self._table
        if table is not None:
            call.ops.rope(qkv, call.heads, *table, inverse)

    def _tensors(self) -> AttentionTensors:
        layer, call, saved = self.products.layer, self.products.call, self.saved
        out = saved.out[:, : layer.out.inner]
        return AttentionTensors(saved.qkv, out, saved.lse, call.heads, call.bounds[layer.window])

    def _qkv_grad(self) -> Tensor:
        products = self.products
        return rows(products.scratch.qkv_grad, len(self.saved.qkv), products.call.heads.width)
