"""The operations of the fast path by Triton kernels; see `fast_ops.TorchOps` for what each does."""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from tasks.training.fast import attention_kernels, kernels
from tasks.training.fast.torch_ops import (
    Bounds,
    Dropout,
    Heads,
    TorchOps,
    signed,
)

_BLOCK4, _BLOCK8 = 64, 256  # bitsandbytes' block sizes of NF4 and of its quantized scales
_PROGRAMS = 512  # a few for each multiprocessor
_LOG2E = math.log2(math.e)

# rows and columns of attention's tiles, warps and pipeline stages; measured, and small enough for
# the 99 KiB of shared memory of an RTX 3080
ATTENTION = {"BM": 64, "BN": 128, "num_warps": 4, "num_stages": 2}
GRAD_Q = {"BM": 64, "BN": 64, "num_warps": 4, "num_stages": 2}
GRAD_KV = {"BM": 64, "BN": 64, "num_warps": 4, "num_stages": 2}


class TritonOps:
    """The operations on a GPU."""

    def load_weight(self, weight: Any, b: Tensor | None, column: int, out: Tensor) -> None:
        """Expand a weight and B; plain weights and unusual block sizes go by PyTorch."""
        state: Any = getattr(weight, "quant_state", None)
        nested: Any = getattr(state, "state2", None)
        usual = state is not None and state.blocksize == _BLOCK4
        if not usual or (nested is not None and nested.blocksize != _BLOCK8):
            TorchOps.load_weight(weight, b, column, out)
            return
        n, inner = state.shape
        width = out.stride(0)
        row_block, bytes_block = 8, 256
        tail = max(16, triton.next_power_of_2(width - inner))
        columns = triton.cdiv(inner, 2 * bytes_block) + (width > inner)
        kernels.load_nf4[(triton.cdiv(n, row_block), columns)](
            weight.data,
            state.absmax,
            state.code if nested is None else nested.code,
            state.absmax if nested is None else nested.absmax,
            state.code if nested is None else state.offset,
            state.code,
            out if b is None else b,
            out,
            n,
            inner,
            width,
            column,
            RANK=0 if b is None else b.shape[1],
            NESTED=nested is not None,
            TAIL=tail,
            ROWS=row_block,
            BYTES=bytes_block,
            num_warps=4,
        )

    def norm(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layer_norm: bool,
        eps: float,
        out: Tensor,
    ) -> None:
        """LayerNorm or RMSNorm."""
        block = triton.next_power_of_2(x.shape[1])
        kernels.norm[(x.shape[0],)](
            x,
            weight,
            weight if bias is None else bias,
            out,
            x.stride(0),
            out.stride(0),
            x.shape[1],
            eps,
            LAYER_NORM=layer_norm,
            HAS_BIAS=bias is not None,
            BLOCK=block,
            num_warps=warps(block),
        )

    def norm_backward(
        self,
        x: Tensor,
        weight: Tensor,
        layer_norm: bool,
        eps: float,
        grad: Tensor,
        residual: Tensor,
    ) -> None:
        """Add to the residual's gradient."""
        block = triton.next_power_of_2(x.shape[1])
        kernels.norm_backward[(x.shape[0],)](
            x,
            weight,
            grad,
            residual,
            x.stride(0),
            grad.stride(0),
            residual.stride(0),
            x.shape[1],
            eps,
            LAYER_NORM=layer_norm,
            BLOCK=block,
            num_warps=warps(block),
        )

    def lora_in(
        self, x: Tensor, inner: int, a: Tensor, members: int, scale: float, drop: Dropout
    ) -> None:
        """LoRA's first product, behind x."""
        rank = a.shape[0] // members
        row_block = 32
        kernels.lora_in[(triton.cdiv(x.shape[0], row_block),)](
            x,
            a,
            x.stride(0),
            x.shape[0],
            inner,
            x.shape[1],
            scale * drop.keep_scale,
            signed(drop.seed),
            drop.threshold,
            MEMBERS=members,
            RANK=rank,
            PADDED=max(16, triton.next_power_of_2(rank)),
            BITS=drop.bits,
            DROP=drop.threshold > 0,
            TAIL=max(16, triton.next_power_of_2(x.shape[1] - inner)),
            ROWS=row_block,
            BLOCK=128,
            num_warps=4,
            num_stages=3,
        )

    def lora_in_backward(
        self,
        x: Tensor,
        grad: Tensor,
        a: Tensor,
        a_grad: Tensor,
        *,
        members: int,
        scale: float,
        drop: Dropout,
    ) -> None:
        """LoRA's first product backward."""
        rank, inner = a.shape[0] // members, a.shape[1]
        block, row_block = 64, 64
        columns = triton.cdiv(inner, block)
        runs, steps = split(x.shape[0], row_block, columns)
        kernels.lora_in_backward[(columns, runs)](
            x,
            grad,
            a,
            a_grad,
            x.stride(0),
            grad.stride(0),
            x.shape[0],
            inner,
            scale * drop.keep_scale,
            signed(drop.seed),
            drop.threshold,
            steps,
            MEMBERS=members,
            RANK=rank,
            PADDED=max(16, triton.next_power_of_2(rank)),
            BITS=drop.bits,
            DROP=drop.threshold > 0,
            ROWS=row_block,
            BLOCK=block,
            num_warps=4,
            num_stages=2,
        )

    def lora_out_backward(self, grad: Tensor, u: Tensor, b_grad: Tensor) -> None:
        """LoRA's second product backward."""
        tokens, n = grad.shape
        block, row_block = 64, 64
        columns = triton.cdiv(n, block)
        runs, steps = split(tokens, row_block, columns)
        kernels.lora_out_backward[(columns, runs)](
            grad,
            u,
            b_grad,
            grad.stride(0),
            u.stride(0),
            tokens,
            n,
            steps,
            RANK=u.shape[1],
            PADDED=max(16, triton.next_power_of_2(u.shape[1])),
            ROWS=row_block,
            BLOCK=block,
            num_warps=4,
            num_stages=3,
        )

    def rope(self, qkv: Tensor, heads: Heads, cos: Tensor, sin: Tensor, inverse: bool) -> None:
        """Rotate q and k in place."""
        count, half = heads.queries + heads.keys, heads.rotated // 2
        kernels.rope[(qkv.shape[0],)](
            qkv,
            cos,
            sin,
            qkv.stride(0),
            -1.0 if inverse else 1.0,
            SIZE=heads.size,
            HEADS=count,
            HALF=half,
            HEADS_UP=triton.next_power_of_2(count),
            HALF_UP=triton.next_power_of_2(half),
            num_warps=4,
        )

    def attention(
        self, qkv: Tensor, heads: Heads, bounds: Bounds, out: Tensor, lse: Tensor
    ) -> None:
        """Causal attention inside each sample."""
        tokens = qkv.shape[0]
        d0, d1 = pieces(heads.size)
        attention_kernels.attention[(triton.cdiv(tokens, ATTENTION["BM"]), heads.queries)](
            qkv,
            bounds.starts,
            out,
            lse,
            qkv.stride(0),
            out.stride(0),
            tokens,
            heads.size**-0.5 * _LOG2E,
            QUERIES=heads.queries,
            KEYS=heads.keys,
            SIZE=heads.size,
            D0=d0,
            D1=d1,
            **ATTENTION,
        )

    def attention_backward(
        self,
        qkv: Tensor,
        heads: Heads,
        bounds: Bounds,
        out: Tensor,
        lse: Tensor,
        grad: Tensor,
        to: Tensor,
    ) -> None:
        """Gradients of q, k and v."""
        tokens, size = qkv.shape[0], heads.size
        d0, d1 = pieces(size)
        delta = torch.empty_like(lse)
        block = 64
        attention_kernels.attention_delta[(triton.cdiv(tokens, block), heads.queries)](
            out,
            grad,
            delta,
            out.stride(0),
            grad.stride(0),
            tokens,
            SIZE=size,
            UP=triton.next_power_of_2(size),
            BM=block,
            num_warps=4,
        )
        shape = {
            "QUERIES": heads.queries,
            "KEYS": heads.keys,
            "SIZE": size,
            "D0": d0,
            "D1": d1,
        }
        numbers = (
            qkv.stride(0),
            grad.stride(0),
            to.stride(0),
            tokens,
            size**-0.5 * _LOG2E,
            size**-0.5,
        )
        attention_kernels.attention_grad_q[(triton.cdiv(tokens, GRAD_Q["BM"]), heads.queries)](
            qkv, bounds.starts, grad, lse, delta, to, *numbers, **shape, **GRAD_Q
        )
        attention_kernels.attention_grad_kv[(triton.cdiv(tokens, GRAD_KV["BN"]), heads.keys)](
            qkv, bounds.starts, bounds.ends, grad, lse, delta, to, *numbers, **shape, **GRAD_KV
        )

    def swiglu(self, gate_up: Tensor, out: Tensor) -> None:
        """silu(gate) * up."""
        tokens, inner = out.shape
        block = min(1024, triton.next_power_of_2(inner))
        kernels.swiglu[(tokens, triton.cdiv(inner, block))](
            gate_up, out, gate_up.stride(0), out.stride(0), inner, BLOCK=block, num_warps=4
        )

    def swiglu_backward(self, gate_up: Tensor, grad: Tensor) -> None:
        """Gate and up become their gradients."""
        tokens, inner = grad.shape
        block = min(1024, triton.next_power_of_2(inner))
        kernels.swiglu_backward[(tokens, triton.cdiv(inner, block))](
            gate_up, grad, gate_up.stride(0), grad.stride(0), inner, BLOCK=block, num_warps=4
        )

    def cross_entropy(self, logits: Tensor, targets: Tensor, scale: float, losses: Tensor) -> None:
        """Losses, and the logits' gradients in their place."""
        rows, values = logits.shape
        block = min(8192, triton.next_power_of_2(values))
        kernels.cross_entropy[(rows,)](
            logits,
            targets,
            losses,
            logits.stride(0),
            values,
            scale,
            BLOCK=block,
            num_warps=warps(block),
        )


def warps(block: int) -> int:
    """Warps of a program that holds one row of `block` values."""
    return 16 if block >= 8192 else 8 if block >= 2048 else 4


def split(tokens: int, row_block: int, columns: int) -> tuple[int, int]:
    """Cut rows into runs so that the GPU is full: (runs, row blocks a run)."""
    blocks = triton.cdiv(tokens, row_block)
    runs = max(1, min(blocks, _PROGRAMS // columns))
    steps = triton.cdiv(blocks, runs)
    return triton.cdiv(blocks, steps), steps


def pieces(size: int) -> tuple[int, int]:
    """A head's size as two powers of two that the matrix units take; the second may be 0."""
    first = 1 << (size.bit_length() - 1)
    first = max(16, first)
    rest = size - first
    return first, max(16, triton.next_power_of_2(rest)) if rest > 0 else 0
