"""The attention branch of a decoder layer: norm, q k v, norms of heads, rotation, attention."""

from dataclasses import dataclass

from torch import Tensor

from tasks.training.fast.layer.products import Products
from tasks.training.fast.layer.state import OUT, QKV, Saved, rows
from tasks.training.fast.ops.operands import AttentionTensors, NormWeights


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
        normed = self._input(x)
        products.lora_in(QKV, normed, again=again)
        if saved.unnormed is None or norms is None:
            products.forward(QKV, normed, saved.qkv)
        else:
            products.forward(QKV, normed, saved.unnormed)
            self._normalize_heads(saved.unnormed, norms)
        self._rotate(saved.qkv, inverse=False)
        products.call.ops.attention(self._tensors())
        products.lora_in(OUT, saved.out, again=again)
        products.add_branch(OUT, saved.out, x, saved.middle, saved.branch1)

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
        self._rotate(to, inverse=True)
        norms = products.layer.head_norms
        if saved.unnormed is not None and norms is not None:
            split = products.call.heads.split
            for x, norm, part in zip(split(saved.unnormed), norms, split(to), strict=False):
                slope = normed_view(part, norm)
                products.call.ops.norm_backward(normed_view(x, norm), norm, slope, slope, add=False)

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

    def _normalize_heads(self, unnormed: Tensor, norms: tuple[NormWeights, NormWeights]) -> None:
        call = self.products.call
        *parts, v = call.heads.split(unnormed)
        *targets, v_target = call.heads.split(self.saved.qkv)
        v_target.copy_(v)
        for x, norm, target in zip(parts, norms, targets, strict=True):
            call.ops.norm(normed_view(x, norm), norm, normed_view(target, norm))

    def _rotate(self, qkv: Tensor, *, inverse: bool) -> None:
        """Rotate q and k in place, if the layer does."""
        call, rotation = self.products.call, self.products.layer.rotation
        if rotation is not None:
            call.ops.rope(qkv, call.heads, *call.tables[rotation], inverse)

    def _tensors(self) -> AttentionTensors:
        layer, call, saved = self.products.layer, self.products.call, self.saved
        out = saved.out[:, : layer.out.inner]
        return AttentionTensors(saved.qkv, out, saved.lse, call.heads, call.bounds[layer.window])

    def _qkv_grad(self) -> Tensor:
        products = self.products
        return rows(products.scratch.qkv_grad, len(self.saved.qkv), products.call.heads.width)


def normed_view(heads: Tensor, norm: NormWeights) -> Tensor:
    """[tokens, heads, size] as the norm takes it: [tokens, 1, heads * size] for one of all heads.

    The width of the weight decides which.
    """
    return heads.view(len(heads), -1, norm.weight.shape[-1])
