"""The fast path's operations as launches of Triton kernels; `torch_ops.TorchOps` documents each.

A launch is `kernel[grid](tensors, strides and sizes, CONSTANTS)`, with an argument group per line.
Tile sizes were chosen by measurement and are fixed: autotuning would time its variants again in
every process. They must fit an RTX 3080, whose blocks have 99 KiB of shared memory;
`tests/unit/training/ampere_checks.py` compiles every kernel for it (sm_86) without a GPU.
"""

import math

import torch
import triton
from torch import Tensor

from tasks.training.fast.kernels import attention as attention_kernels
from tasks.training.fast.kernels import head_norms, rowwise
from tasks.training.fast.ops.head_norms import HeadNorms, Norms, Table
from tasks.training.fast.ops.operands import AttentionTensors, Heads, NormWeights
from tasks.training.fast.ops.triton_mlp import TritonMlp
from tasks.training.fast.ops.triton_weights import TritonWeights

_LOG2E = math.log2(math.e)

# attention's tile of rows (BM) and columns (BN), warps, pipeline stages; at head size 128 they take
# 52, 72 and 81 KiB of shared memory
ATTENTION = {"BM": 64, "BN": 32, "num_warps": 4, "num_stages": 3}
GRAD_Q = {"BM": 64, "BN": 64, "num_warps": 4, "num_stages": 2}
GRAD_KV = {"BM": 64, "BN": 64, "num_warps": 4, "num_stages": 2}
NORM_HEADS = 8  # of a program
LARGE_HEAD = 128  # above it (Gemma has 256), smaller tiles fit
ATTENTION_LARGE = {"BM": 64, "BN": 32, "num_warps": 8, "num_stages": 2}
GRAD_Q_LARGE = {"BM": 32, "BN": 32, "num_warps": 4, "num_stages": 1}
GRAD_KV_LARGE = {"BM": 32, "BN": 32, "num_warps": 4, "num_stages": 1}


class TritonOps(TritonWeights, TritonMlp, HeadNorms):
    """The operations on a GPU."""

    def norm(self, x: Tensor, norm: NormWeights, out: Tensor, stream: Tensor | None = None) -> None:
        """LayerNorm or RMSNorm, plus `stream`; kernels get placeholders for what is not there."""
        grid, heads, sizes = _norm_programs(x)
        rowwise.norm[grid](
            x, norm.weight, norm.weight if norm.bias is None else norm.bias, out,
            out if stream is None else stream,
            *_steps(x), *_steps(out), 0 if stream is None else stream.stride(0), _head_step(norm),
            heads, x.shape[-1], norm.eps,
            LAYER_NORM=norm.layer_norm, HAS_BIAS=norm.bias is not None, ADD=stream is not None,
            **sizes,
        )  # fmt: skip

    def norm_backward(
        self, x: Tensor, norm: NormWeights, grad: Tensor, to: Tensor, *, add: bool = True
    ) -> None:
        """Add to the residual stream's gradient, or write."""
        grid, heads, sizes = _norm_programs(x)
        rowwise.norm_backward[grid](
            x, norm.weight, grad, to,
            *_steps(x), *_steps(grad), *_steps(to), _head_step(norm), heads, x.shape[-1], norm.eps,
            LAYER_NORM=norm.layer_norm, ADD=add, **sizes,
        )  # fmt: skip

    def rope(self, qkv: Tensor, heads: Heads, cos: Tensor, sin: Tensor, inverse: bool) -> None:
        """Rotate q and k in place."""
        count, half = heads.queries + heads.keys, heads.rotated // 2
        rowwise.rope[(qkv.shape[0],)](
            qkv, cos, sin,
            qkv.stride(0), -1.0 if inverse else 1.0,
            SIZE=heads.size, HEADS=count, HALF=half,
            PAIRS=heads.adjacent_pairs, GROUPED=heads.grouped,
            HEADS_UP=triton.next_power_of_2(count), HALF_UP=triton.next_power_of_2(half),
            num_warps=4,
        )  # fmt: skip

    def norm_heads(self, x: Tensor, norms: Norms, out: Tensor, heads: Heads, table: Table) -> None:
        """Norms of heads and rotation, in one kernel where they have its form."""
        if table is None or not _is_fused(norms, heads):
            super().norm_heads(x, norms, out, heads, table)
            return
        grid, sizes = _norm_rope_programs(heads, heads.queries + 2 * heads.keys)
        head_norms.norm_rope[(len(x), grid)](
            x, norms[0].weight, norms[1].weight, *table, out,
            x.stride(0), out.stride(0), norms[0].eps, **sizes,
        )  # fmt: skip

    def norm_heads_backward(
        self, x: Tensor, norms: Norms, grad: Tensor, heads: Heads, table: Table
    ) -> None:
        """Likewise, in place."""
        if table is None or not _is_fused(norms, heads):
            super().norm_heads_backward(x, norms, grad, heads, table)
            return
        grid, sizes = _norm_rope_programs(heads, heads.queries + heads.keys)
        head_norms.norm_rope_backward[(len(x), grid)](
            x, norms[0].weight, norms[1].weight, *table, grad,
            x.stride(0), grad.stride(0), norms[0].eps, **sizes,
        )  # fmt: skip

    def attention(self, state: AttentionTensors) -> None:
        """Causal attention within each sample; `lse` is in base 2."""
        qkv, heads, tokens = state.qkv, state.heads, state.qkv.shape[0]
        tile, _, _ = attention_tiles(heads.size)
        attention_kernels.attention[(triton.cdiv(tokens, tile["BM"]), heads.queries)](
            qkv, state.bounds.starts, state.out, state.lse,
            qkv.stride(0), state.out.stride(0), tokens, heads.scale * _LOG2E,
            **_head_shape(heads), **tile,
        )  # fmt: skip

    def attention_backward(self, state: AttentionTensors, grad: Tensor, to: Tensor) -> None:
        """Gradients of q, k and v."""
        qkv, out, lse, heads, bounds = state.qkv, state.out, state.lse, state.heads, state.bounds
        tokens, size, block = qkv.shape[0], heads.size, 64
        delta = torch.empty_like(lse)
        attention_kernels.attention_delta[(triton.cdiv(tokens, block), heads.queries)](
            out, grad, delta,
            out.stride(0), grad.stride(0), tokens,
            SIZE=size, UP=triton.next_power_of_2(size), BM=block, num_warps=4,
        )  # fmt: skip
        strides = (qkv.stride(0), grad.stride(0), to.stride(0))
        numbers = (*strides, tokens, heads.scale * _LOG2E, heads.scale)
        shape, (_, for_q, for_kv) = _head_shape(heads), attention_tiles(size)
        attention_kernels.attention_grad_q[(triton.cdiv(tokens, for_q["BM"]), heads.queries)](
            qkv, bounds.starts, grad, lse, delta, to, *numbers, **shape, **for_q
        )
        attention_kernels.attention_grad_kv[(triton.cdiv(tokens, for_kv["BN"]), heads.keys)](
            qkv, bounds.starts, bounds.ends, grad, lse, delta, to, *numbers, **shape, **for_kv
        )

    def cross_entropy(
        self, logits: Tensor, targets: Tensor, scale: float, losses: Tensor, cap: float = 0.0
    ) -> None:
        """Losses; logits become their gradients."""
        rows, values = logits.shape
        block = min(8192, triton.next_power_of_2(values))
        rowwise.cross_entropy[(rows,)](
            logits, targets, losses,
            logits.stride(0), values, scale, CAP=cap, BLOCK=block, num_warps=warps(block),
        )  # fmt: skip


def _norm_programs(x: Tensor) -> tuple[tuple[int, int], int, dict[str, int]]:
    """Grid, number of heads, and constants: a program for each row, or for some heads of it."""
    heads = x.shape[1] if x.ndim > 2 else 1
    tile, block = (
        min(NORM_HEADS, triton.next_power_of_2(heads)),
        triton.next_power_of_2(x.shape[-1]),
    )
    sizes = {"TILE": tile, "BLOCK": block, "num_warps": warps(tile * block)}
    return (x.shape[0], triton.cdiv(heads, tile)), heads, sizes


def _is_fused(norms: Norms, heads: Heads) -> bool:
    """Whether the kernels of `head_norms` compute these norms and the rotation."""
    return (
        heads.rotated == heads.size
        and not (heads.adjacent_pairs or heads.grouped)
        and norms[0].eps == norms[1].eps
        and all(n.weight.shape == (heads.size,) and not n.layer_norm for n in norms)
    )


def _norm_rope_programs(heads: Heads, count: int) -> tuple[int, dict[str, int]]:
    """Programs of a token for so many heads, and constants."""
    tile, block = NORM_HEADS, triton.next_power_of_2(heads.size // 2)
    return triton.cdiv(count, tile), {
        "QUERIES": heads.queries,
        "KEYS": heads.keys,
        "HALF": heads.size // 2,
        "TILE": tile,
        "BLOCK": block,
        "num_warps": warps(tile * block),
    }


def _steps(x: Tensor) -> tuple[int, int]:
    """Between rows, and between heads."""
    return x.stride(0), x.stride(1) if x.ndim > 2 else 0


def _head_step(norm: NormWeights) -> int:
    """Between the weights of heads: 0 where they share them."""
    return norm.weight.stride(0) if norm.weight.ndim > 1 else 0


def _head_shape(heads: Heads) -> dict[str, float]:
    """Constants of the attention kernels."""
    size, grouped = heads.size, heads.grouped
    d0, d1 = head_parts(size)
    return {
        "QUERIES": heads.queries,
        "KEYS": heads.keys,
        "SIZE": size,
        "Q_STEP": 3 * size if grouped else size,
        "K_START": size if grouped else heads.queries * size,
        "KV_STEP": 3 * size if grouped else size,
        "V_START": 2 * size if grouped else (heads.queries + heads.keys) * size,
        "D0": d0,
        "D1": d1,
        "CAP": heads.cap * _LOG2E,
    }


def attention_tiles(size: int) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Tiles of the forward pass, the queries' and the keys' gradients, for a head size."""
    if size <= LARGE_HEAD:
        return ATTENTION, GRAD_Q, GRAD_KV
    return ATTENTION_LARGE, GRAD_Q_LARGE, GRAD_KV_LARGE


def warps(block: int) -> int:
    """Warps of a program that holds one row of `block` values in registers."""
    return 16 if block >= 8192 else 8 if block >= 2048 else 4 if block >= 512 else 1


def head_parts(size: int) -> tuple[int, int]:
    """A head size as two powers of two of at least 16, the least that `tl.dot` takes, or (n, 0)."""
    first = 1 << (size.bit_length() - 1)
    first = max(16, first)
    rest = size - first
    return first, max(16, triton.next_power_of_2(rest)) if rest > 0 else 0
