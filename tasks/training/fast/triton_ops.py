"""The fast path's operations as launches of Triton kernels; `torch_ops.TorchOps` documents each.

A launch is `kernel[grid](tensors, strides and sizes, CONSTANTS)`, with an argument group per line.
Tile sizes were chosen by measurement and are fixed: autotuning would time its variants again in
every process. They must fit an RTX 3080, whose blocks have 99 KiB of shared memory;
`tests/unit/training/ampere_checks.py` compiles every kernel for it (sm_86) without a GPU.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from tasks.training.fast.kernels import attention as attention_kernels
from tasks.training.fast.kernels import lora as lora_kernels
from tasks.training.fast.kernels import rowwise, swiglu
from tasks.training.fast.operands import (
    AttentionTensors,
    Dropout,
    GateUpLora,
    Heads,
    LoraInput,
    NormWeights,
    Packed,
    signed,
)
from tasks.training.fast.triton_weights import TritonWeights, padded_rank, tail

_PROGRAMS = 2112  # 16 for each multiprocessor of an H100, 31 of an RTX 3080
_LOG2E = math.log2(math.e)

# attention's tile of rows (BM) and columns (BN), warps, pipeline stages; at head size 128 they take
# 52, 72 and 81 KiB of shared memory
ATTENTION = {"BM": 64, "BN": 32, "num_warps": 4, "num_stages": 3}
GRAD_Q = {"BM": 64, "BN": 64, "num_warps": 4, "num_stages": 2}
GRAD_KV = {"BM": 64, "BN": 64, "num_warps": 4, "num_stages": 2}
LORA_IN = {"ROWS": 16, "BLOCK": 128, "num_warps": 2, "num_stages": 4}
LORA_IN_BACKWARD = {"ROWS": 64, "BLOCK": 64, "num_warps": 4, "num_stages": 2}
LORA_OUT_BACKWARD = {"ROWS": 64, "BLOCK": 64, "num_warps": 4, "num_stages": 3}
SWIGLU = {"ROWS": 16, "BLOCK": 256, "num_warps": 8, "num_stages": 3}
SWIGLU_PACK = {"ROWS": 16, "BLOCK": 128, "num_warps": 8, "num_stages": 3}  # with the 8-bit copy
SWIGLU_BACKWARD = {"ROWS": 16, "BLOCK": 64, "num_warps": 4, "num_stages": 3}


class TritonOps(TritonWeights):
    """The operations on a GPU."""

    def norm(self, x: Tensor, norm: NormWeights, out: Tensor) -> None:
        """LayerNorm or RMSNorm; a kernel without a bias gets the weight as a placeholder."""
        block = triton.next_power_of_2(x.shape[1])
        rowwise.norm[(x.shape[0],)](
            x, norm.weight, norm.weight if norm.bias is None else norm.bias, out,
            x.stride(0), out.stride(0), x.shape[1], norm.eps,
            LAYER_NORM=norm.layer_norm, HAS_BIAS=norm.bias is not None, BLOCK=block,
            num_warps=warps(block),
        )  # fmt: skip

    def norm_backward(self, x: Tensor, norm: NormWeights, grad: Tensor, residual: Tensor) -> None:
        """Add to the residual stream's gradient."""
        block = triton.next_power_of_2(x.shape[1])
        rowwise.norm_backward[(x.shape[0],)](
            x, norm.weight, grad, residual,
            x.stride(0), grad.stride(0), residual.stride(0), x.shape[1], norm.eps,
            LAYER_NORM=norm.layer_norm, BLOCK=block, num_warps=warps(block),
        )  # fmt: skip

    def lora_in(self, x: Tensor, lora: LoraInput, side: Tensor) -> None:
        """LoRA's first product, after x's columns and in `side`."""
        inner = lora.a.shape[1]
        seeds, place = _seed(lora.drop, x.device)
        lora_kernels.lora_in[(triton.cdiv(x.shape[0], LORA_IN["ROWS"]),)](
            x, lora.a, side, seeds,
            x.stride(0), x.shape[0], inner, x.shape[1], lora.factor, place, lora.drop.threshold,
            MEMBERS=lora.members, **_lora_shape(lora), TAIL=tail(x.shape[1] - inner), **LORA_IN,
        )  # fmt: skip

    def restore(self, x: Tensor, side: Tensor, inner: int) -> None:
        """LoRA's columns from `side`."""
        row_block = 64
        lora_kernels.restore[(triton.cdiv(x.shape[0], row_block),)](
            x, side,
            x.stride(0), x.shape[0], inner, x.shape[1], side.shape[1],
            TAIL=tail(x.shape[1] - inner), ROWS=row_block, num_warps=4,
        )  # fmt: skip

    def lora_in_backward(self, x: Tensor, grad: Tensor, lora: LoraInput, a_grad: Tensor) -> None:
        """LoRA's first product backward."""
        inner, tile = lora.a.shape[1], LORA_IN_BACKWARD
        columns = triton.cdiv(inner, tile["BLOCK"])
        runs, steps = split(x.shape[0], tile["ROWS"], columns)
        seeds, place = _seed(lora.drop, x.device)
        lora_kernels.lora_in_backward[(columns, runs)](
            x, grad, lora.a, a_grad, seeds,
            x.stride(0), grad.stride(0), x.shape[0], inner, lora.factor,
            place, lora.drop.threshold, steps,
            MEMBERS=lora.members, **_lora_shape(lora), **tile,
        )  # fmt: skip

    def lora_out_backward(self, grad: Tensor, u: Tensor, b_grad: Tensor) -> None:
        """LoRA's second product backward."""
        (tokens, n), rank, tile = grad.shape, u.shape[1], LORA_OUT_BACKWARD
        columns = triton.cdiv(n, tile["BLOCK"])
        runs, steps = split(tokens, tile["ROWS"], columns)
        lora_kernels.lora_out_backward[(columns, runs)](
            grad, u, b_grad,
            grad.stride(0), u.stride(0), tokens, n, steps,
            RANK=rank, PADDED=padded_rank(rank), **tile,
        )  # fmt: skip

    def rope(self, qkv: Tensor, heads: Heads, cos: Tensor, sin: Tensor, inverse: bool) -> None:
        """Rotate q and k in place."""
        count, half = heads.queries + heads.keys, heads.rotated // 2
        rowwise.rope[(qkv.shape[0],)](
            qkv, cos, sin,
            qkv.stride(0), -1.0 if inverse else 1.0,
            SIZE=heads.size, HEADS=count, HALF=half,
            HEADS_UP=triton.next_power_of_2(count), HALF_UP=triton.next_power_of_2(half),
            num_warps=4,
        )  # fmt: skip

    def attention(self, state: AttentionTensors) -> None:
        """Causal attention within each sample; `lse` is in base 2."""
        qkv, heads, tokens = state.qkv, state.heads, state.qkv.shape[0]
        attention_kernels.attention[(triton.cdiv(tokens, ATTENTION["BM"]), heads.queries)](
            qkv, state.bounds.starts, state.out, state.lse,
            qkv.stride(0), state.out.stride(0), tokens, heads.size**-0.5 * _LOG2E,
            **_head_shape(heads), **ATTENTION,
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
        numbers = (*strides, tokens, size**-0.5 * _LOG2E, size**-0.5)
        shape = _head_shape(heads)
        attention_kernels.attention_grad_q[(triton.cdiv(tokens, GRAD_Q["BM"]), heads.queries)](
            qkv, bounds.starts, grad, lse, delta, to, *numbers, **shape, **GRAD_Q
        )
        attention_kernels.attention_grad_kv[(triton.cdiv(tokens, GRAD_KV["BN"]), heads.keys)](
            qkv, bounds.starts, bounds.ends, grad, lse, delta, to, *numbers, **shape, **GRAD_KV
        )

    def swiglu(
        self,
        gate_up: Tensor,
        out: Tensor,
        lora: LoraInput | None,
        side: Tensor,
        packed: Packed | None = None,
    ) -> None:
        """silu(gate) * up, LoRA's first product of it, and the 8-bit copy."""
        (tokens, width), inner = out.shape, gate_up.shape[1] // 2
        small, scales = (out, out) if packed is None else (packed.values, packed.scales)
        seeds, factor, place, threshold, a = _lora_numbers(lora, out)
        tile = SWIGLU if packed is None else SWIGLU_PACK
        swiglu.swiglu[(triton.cdiv(tokens, tile["ROWS"]),)](
            gate_up, out, a, side, seeds, small, scales,
            gate_up.stride(0), out.stride(0), tokens, inner, width, factor, place, threshold,
            **_lora_shape(lora), PACK=packed is not None, TAIL=tail(width - inner), **tile,
        )  # fmt: skip

    def swiglu_backward(
        self,
        gate_up: Tensor,
        grad: Tensor,
        lora: LoraInput | None,
        a_grad: Tensor | None,
        above: GateUpLora,
        packed: Packed | None = None,
    ) -> None:
        """Gradients of gate and up, of the output's A, and of the B of gate and up."""
        tokens, inner, tile = len(gate_up), gate_up.shape[1] // 2, SWIGLU_BACKWARD
        columns = triton.cdiv(inner, tile["BLOCK"])
        runs, steps = split(tokens, tile["ROWS"], columns)
        small, scales = (grad, grad) if packed is None else (packed.values, packed.scales)
        seeds, factor, place, threshold, a = _lora_numbers(lora, grad)
        unused = grad  # where a pointer is not read
        sums = (unused if one is None else one for one in (above.gate_grad, above.up_grad))
        swiglu.swiglu_backward[(columns, runs)](
            gate_up, grad, a, unused if a_grad is None else a_grad, seeds, small, scales,
            above.u, *sums,
            gate_up.stride(0), grad.stride(0), above.u.stride(0),
            tokens, inner, factor, place, threshold, steps,
            **_lora_shape(lora), PACKED=packed is not None, GATE=above.gate, UP=above.up,
            B_RANK=above.rank, B_PADDED=padded_rank(above.rank), **tile,
        )  # fmt: skip

    def cross_entropy(self, logits: Tensor, targets: Tensor, scale: float, losses: Tensor) -> None:
        """Losses; logits become their gradients."""
        rows, values = logits.shape
        block = min(8192, triton.next_power_of_2(values))
        rowwise.cross_entropy[(rows,)](
            logits, targets, losses,
            logits.stride(0), values, scale, BLOCK=block, num_warps=warps(block),
        )  # fmt: skip


def _lora_shape(lora: LoraInput | None) -> dict[str, Any]:
    """Constants of the kernels of LoRA's first product."""
    if lora is None:
        return {"RANK": 0, "PADDED": 16, "BITS": 16, "DROP": False}
    return {
        "RANK": lora.rank,
        "PADDED": padded_rank(lora.rank),
        "BITS": lora.drop.bits,
        "DROP": lora.drop.threshold > 0,
    }


def _lora_numbers(
    lora: LoraInput | None, placeholder: Tensor
) -> tuple[Tensor, float, int, int, Tensor]:
    """Seeds, factor, seed's index, threshold and A; placeholders without LoRA."""
    if lora is None:
        return torch.empty(1, dtype=torch.int32, device=placeholder.device), 0.0, 0, 0, placeholder
    seeds, place = _seed(lora.drop, placeholder.device)
    return seeds, lora.factor, place, lora.drop.threshold, lora.a


def _seed(drop: Dropout, device: torch.device) -> tuple[Tensor, int]:
    """The tensor that a kernel reads dropout's seed from, and its index there."""
    if drop.seeds is not None:
        return drop.seeds, drop.place
    return torch.tensor([signed(drop.seed)], dtype=torch.int32, device=device), 0


def _head_shape(heads: Heads) -> dict[str, int]:
    """Constants of the attention kernels."""
    d0, d1 = head_parts(heads.size)
    counts = {"QUERIES": heads.queries, "KEYS": heads.keys}
    return counts | {"SIZE": heads.size, "D0": d0, "D1": d1}


def warps(block: int) -> int:
    """Warps of a program that holds one row of `block` values in registers."""
    return 16 if block >= 8192 else 8 if block >= 2048 else 4


def split(tokens: int, row_block: int, columns: int) -> tuple[int, int]:
    """Divide rows into runs: about `_PROGRAMS` programs in all; (runs, row tiles per run)."""
    blocks = triton.cdiv(tokens, row_block)
    runs = max(1, min(blocks, _PROGRAMS // columns))
    steps = triton.cdiv(blocks, runs)
    return triton.cdiv(blocks, steps), steps


def head_parts(size: int) -> tuple[int, int]:
    """A head size as two powers of two of at least 16, the least that `tl.dot` takes, or (n, 0)."""
    first = 1 << (size.bit_length() - 1)
    first = max(16, first)
    rest = size - first
    return first, max(16, triton.next_power_of_2(rest)) if rest > 0 else 0
