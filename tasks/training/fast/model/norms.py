"""Frozen norms of a model as tensors: LayerNorm or RMSNorm, of the residual stream or of heads."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tasks.training.fast.model.weights import Unsupported
from tasks.training.fast.ops.operands import NormWeights


def norm_of(module: Any, offset: float) -> NormWeights:
    """A norm's weights; `offset` is added to those of an RMSNorm."""
    kind, bias = type(module).__name__, getattr(module, "bias", None)
    if isinstance(module, nn.LayerNorm):
        return NormWeights(module.weight, bias, module.eps, True)
    weight = module.weight.float() + offset if offset else module.weight
    eps = float(getattr(module, "variance_epsilon", 0.0) or getattr(module, "eps", 0.0))
    if not kind.endswith(("RMSNorm", "LayerNorm")) or bias is not None or not eps:
        raise Unsupported(f"norms of kind {kind}")
    return NormWeights(weight, None, eps, not kind.endswith("RMSNorm"))


def scaled(norm: NormWeights, factor: float) -> NormWeights:
    """A norm whose output is multiplied by `factor`."""
    if factor == 1.0:
        return norm
    bias = None if norm.bias is None else norm.bias.float() * factor
    return replace(norm, weight=norm.weight.float() * factor, bias=bias)


def head_norms_of(attention: Any, offset: float) -> tuple[NormWeights, NormWeights]:
    """The norms of queries and keys."""
    short = "norm" if hasattr(attention, "q_norm") else "layernorm"
    q, k = (_head_norm(getattr(attention, f"{which}_{short}"), offset) for which in "qk")
    return q, k


def _head_norm(module: Any, offset: float) -> NormWeights:
    """A norm of one head's size, one for each head, or one over all heads."""
    if hasattr(module, "norms"):  # a list with a norm for each head
        parts = [norm_of(one, offset) for one in module.norms]
        biases = [part.bias for part in parts if part.bias is not None]
        weight = torch.stack([part.weight for part in parts])
        bias = torch.stack(biases) if biases else None
        return replace(parts[0], weight=weight, bias=bias)
    return norm_of(module, offset)
