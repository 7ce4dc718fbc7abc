"""Norms on the heads of queries and keys (Qwen3), by PyTorch's own operations on every device."""

import torch
from torch import Tensor

from tasks.training.fast.operands import Heads, NormWeights

Norms = tuple[NormWeights, NormWeights]
ROWS = 1024  # tokens at a time: bounds the intermediate values in 32 bit


def normalize(qkv: Tensor, heads: Heads, norms: Norms, out: Tensor) -> None:
    """Write q and k with every head normalized, and v, into `out` [tokens, heads.width]."""
    for rows, target_rows in zip(torch.split(qkv, ROWS), torch.split(out, ROWS), strict=True):
        *parts, v = heads.split(rows)
        *targets, v_target = heads.split(target_rows)
        v_target.copy_(v)
        for x, norm, target in zip(parts, norms, targets, strict=True):
            hat, _ = _normalized(x, norm)
            target.copy_(hat * norm.weight.float())


def normalize_backward(qkv: Tensor, heads: Heads, norms: Norms, grad: Tensor) -> None:
    """Turn the gradient of normalized q and k into that of `qkv`, in place; v's stays."""
    for rows, grad_rows in zip(torch.split(qkv, ROWS), torch.split(grad, ROWS), strict=True):
        for x, norm, part in zip(
            heads.split(rows)[:2], norms, heads.split(grad_rows), strict=False
        ):
            hat, rstd = _normalized(x, norm)
            slope = part.float() * norm.weight.float()
            part.copy_((slope - hat * (slope * hat).mean(-1, keepdim=True)) * rstd)


def _normalized(x: Tensor, norm: NormWeights) -> tuple[Tensor, Tensor]:
    """RMSNorm without its weight, float32, and its factor."""
    full = x.float()
    rstd = torch.rsqrt(full.square().mean(-1, keepdim=True) + norm.eps)
    return full * rstd, rstd
