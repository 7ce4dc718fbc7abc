"""Frozen weights, and products with them in 8 bit, as launches of Triton kernels.

`torch_weights.TorchWeights` documents each operation. `triton_ops` has the other operations, and a
note on tile sizes.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from tasks.training.fast.kernels import int8, nf4
from tasks.training.fast.ops.operands import Rotated, Rounded
from tasks.training.fast.ops.torch_weights import TorchWeights

_BLOCK4, _BLOCK8 = 64, 256  # bitsandbytes' block sizes of NF4 and of its quantized scales

NF4 = {"ROWS": 8, "BYTES": 256, "num_warps": 4}
NF4_ROTATED = {"BYTES": 64, "num_warps": 4}
QUANTIZE = {"ROWS": 32, "PARTS": 2, "num_warps": 4, "num_stages": 4}
PRODUCT8 = {"BM": 128, "BN": 128, "BK": 128, "TOGETHER": 8, "num_warps": 8, "num_stages": 3}


class TritonWeights:
    """Operations on frozen weights, on a GPU."""

    def load_weight(self, weight: Any, b: Tensor | None, column: int, out: Tensor) -> None:
        """Dequantize a weight, add B; other formats than NF4 in usual blocks go through PyTorch."""
        state: Any = getattr(weight, "quant_state", None)
        if not _usual(state):
            TorchWeights.load_weight(weight, b, column, out)
            return
        n, inner = state.shape
        width = out.stride(0)
        columns = triton.cdiv(inner, 2 * NF4["BYTES"]) + (width > inner)
        nf4.load_nf4[(triton.cdiv(n, NF4["ROWS"]), columns)](
            weight.data, state.absmax, *_second(state), state.code, out if b is None else b, out,
            n, inner, width, column,
            RANK=0 if b is None else b.shape[1], NESTED=state.nested,
            TAIL=tail(width - inner), **NF4,
        )  # fmt: skip

    def load_rotated(
        self, weight: Any, b: Tensor | None, column: int, to: Rotated, part: slice
    ) -> None:
        """Dequantize, rotate and round a weight; formats as of `load_weight`."""
        state: Any = getattr(weight, "quant_state", None)
        if not _usual(state):
            TorchWeights.load_rotated(weight, b, column, to, part)
            return
        (n, inner), width = state.shape, to.tail.shape[1]
        columns = triton.cdiv(inner, 2 * NF4_ROTATED["BYTES"]) + (width > 0)
        int8.load_nf4_rotated[(n // 64, columns)](
            weight.data, state.absmax, *_second(state), state.code, to.tail if b is None else b,
            to.scales, to.values[:, part], to.tail[part],
            inner, to.values.stride(0), width, column,
            RANK=0 if b is None else b.shape[1], NESTED=state.nested, TAIL=tail(width),
            **NF4_ROTATED,
        )  # fmt: skip

    def add_product(self, wide: Tensor, x: Tensor, weight: Tensor, scale: float) -> None:
        """One product, whose sums are written without rounding."""
        torch.addmm(wide, x, weight.t(), out_dtype=torch.float32, alpha=scale, out=wide)

    def quantize(self, grad: Tensor, b: Tensor, to: Rounded, back: Tensor) -> None:
        """Rotate and round a gradient; its product with B."""
        tokens, n = grad.shape
        int8.quantize[(triton.cdiv(tokens, QUANTIZE["ROWS"]),)](
            grad, b, to.values, to.scales, back,
            grad.stride(0), back.stride(0), tokens, n,
            WIDTH=b.shape[1], TAIL=tail(b.shape[1]), **QUANTIZE,
        )  # fmt: skip

    def product8(self, rounded: Rounded, weight: Rotated, out: Tensor) -> None:
        """The input's gradient by the integer units."""
        (tokens, n), inner, tile = rounded.values.shape, len(weight.scales), PRODUCT8
        tiles = triton.cdiv(tokens, tile["BM"]) * triton.cdiv(inner, tile["BN"])
        int8.product8[(tiles,)](
            rounded.values, weight.values, rounded.scales, weight.scales, out,
            out.stride(0), tokens, n, inner, **tile,
        )  # fmt: skip


def _usual(state: Any) -> bool:
    """Whether a weight is NF4 in bitsandbytes' usual block sizes."""
    nested: Any = getattr(state, "state2", None)
    usual = state is not None and state.blocksize == _BLOCK4
    return usual and (nested is None or nested.blocksize == _BLOCK8)


def _second(state: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Code, scales and offset of the second level; placeholders without double quantization."""
    if not state.nested:
        return state.code, state.absmax, state.code
    return state.state2.code, state.state2.absmax, state.offset


def tail(columns: int) -> int:
    """Tile of the columns after an extended matrix's K."""
    return max(16, 1 << (columns - 1).bit_length())


def padded_rank(rank: int) -> int:
    """Tile of a rank, see PADDED in `kernels`."""
    return max(16, 1 << (rank - 1).bit_length())
