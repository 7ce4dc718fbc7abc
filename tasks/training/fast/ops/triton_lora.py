"""LoRA's products as launches of Triton kernels; `torch_lora.TorchLora` documents each."""

from typing import Any

import torch
import triton
from torch import Tensor

from tasks.training.fast.kernels import lora as lora_kernels
from tasks.training.fast.ops.dropout import Dropout, signed
from tasks.training.fast.ops.operands import LoraInput
from tasks.training.fast.ops.triton_weights import padded_rank, tail

_PROGRAMS = 2112  # 16 for each multiprocessor of an H100, 31 of an RTX 3080
LORA_IN = {"ROWS": 16, "BLOCK": 128, "num_warps": 2, "num_stages": 4}
LORA_IN_BACKWARD = {"ROWS": 64, "BLOCK": 64, "num_warps": 4, "num_stages": 2}
LORA_OUT_BACKWARD = {"ROWS": 64, "BLOCK": 64, "num_warps": 4, "num_stages": 3}


class TritonLora:
    """LoRA's products on a GPU."""

    def lora_in(self, x: Tensor, lora: LoraInput, side: Tensor) -> None:
        """LoRA's first product, after x's columns and in `side`."""
        inner = lora.a.shape[1]
        seeds, place = seed_of(lora.drop, x.device)
        lora_kernels.lora_in[(triton.cdiv(x.shape[0], LORA_IN["ROWS"]),)](
            x, lora.a, side, seeds,
            x.stride(0), x.shape[0], inner, x.shape[1], lora.factor, place, lora.drop.threshold,
            MEMBERS=lora.members, **lora_shape(lora), TAIL=tail(x.shape[1] - inner), **LORA_IN,
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
        seeds, place = seed_of(lora.drop, x.device)
        lora_kernels.lora_in_backward[(columns, runs)](
            x, grad, lora.a, a_grad, seeds,
            x.stride(0), grad.stride(0), x.shape[0], inner, lora.factor,
            place, lora.drop.threshold, steps,
            MEMBERS=lora.members, **lora_shape(lora), **tile,
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


def lora_shape(lora: LoraInput | None) -> dict[str, Any]:
    """Constants of the kernels of LoRA's first product."""
    if lora is None:
        return {"RANK": 0, "PADDED": 16, "BITS": 16, "DROP": False}
    return {
        "RANK": lora.rank,
        "PADDED": padded_rank(lora.rank),
        "BITS": lora.drop.bits,
        "DROP": lora.drop.threshold > 0,
    }


def lora_numbers(
    lora: LoraInput | None, placeholder: Tensor
) -> tuple[Tensor, float, int, int, Tensor]:
    """Seeds, factor, seed's index, threshold and A; placeholders without LoRA."""
    if lora is None:
        return torch.empty(1, dtype=torch.int32, device=placeholder.device), 0.0, 0, 0, placeholder
    seeds, place = seed_of(lora.drop, placeholder.device)
    return seeds, lora.factor, place, lora.drop.threshold, lora.a


def seed_of(drop: Dropout, device: torch.device) -> tuple[Tensor, int]:
    """The tensor that a kernel reads dropout's seed from, and its index there."""
    if drop.seeds is not None:
        return drop.seeds, drop.place
    return torch.tensor([signed(drop.seed)], dtype=torch.int32, device=device), 0


def split(tokens: int, row_block: int, columns: int) -> tuple[int, int]:
    """Divide rows into runs: about `_PROGRAMS` programs in all; (runs, row tiles per run)."""
    blocks = triton.cdiv(tokens, row_block)
    runs = max(1, min(blocks, _PROGRAMS // columns))
    steps = triton.cdiv(blocks, runs)
    return triton.cdiv(blocks, steps), steps
