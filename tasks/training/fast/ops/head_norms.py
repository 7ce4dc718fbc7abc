"""Norms of q's and k's heads and the rotation after them, step by step from other operations."""

from typing import Any

from torch import Tensor

from tasks.training.fast.ops.operands import Heads, NormWeights

Norms = tuple[NormWeights, NormWeights]
Table = tuple[Tensor, Tensor] | None  # cos and sin; None: no rotation


class HeadNorms:
    """For operations that have `norm`, `norm_backward` and `rope`."""

    norm: Any
    norm_backward: Any
    rope: Any

    def norm_heads(self, x: Tensor, norms: Norms, out: Tensor, heads: Heads, table: Table) -> None:
        """Write q, k and v of `x` [tokens, heads.width] into `out`: q and k normalized and rotated.

        Args:
            x: Before the norms.
            norms: Of q and of k: of each head, or of all together.
            out: Likewise.
            heads: Shape of both.
            table: Of the rotation.
        """
        *parts, v = heads.split(x)
        *targets, v_target = heads.split(out)
        v_target.copy_(v)
        for part, norm, target in zip(parts, norms, targets, strict=True):
            self.norm(_view(part, norm), norm, _view(target, norm))
        if table is not None:
            self.rope(out, heads, *table, False)

    def norm_heads_backward(
        self, x: Tensor, norms: Norms, grad: Tensor, heads: Heads, table: Table
    ) -> None:
        """Turn the gradient of `norm_heads`' output into that of its input `x`, in place."""
        if table is not None:
            self.rope(grad, heads, *table, True)
        for part, norm, to in zip(heads.split(x), norms, heads.split(grad), strict=False):
            slope = _view(to, norm)
            self.norm_backward(_view(part, norm), norm, slope, slope, add=False)


def _view(heads: Tensor, norm: NormWeights) -> Tensor:
    """[tokens, heads, size] as the norm takes it: [tokens, 1, heads * size] for one of all heads.

    The width of the weight decides which.
    """
    return heads.view(len(heads), -1, norm.weight.shape[-1])
