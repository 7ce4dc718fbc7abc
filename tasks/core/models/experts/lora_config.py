"""LoRA on fused experts: PEFT's `target_parameters`, computed beside the frozen weights."""

import math
from collections.abc import Sequence
from typing import Any

from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import nn

from tasks.core.models.experts.forward import use_own_forward
from tasks.core.models.experts.fused import fused_weights


def expert_fields(
    model: Any,
    layers: Sequence[int] | None,
    *,
    expert_rank: int,
    rank: int,
    alpha: float,
    use_rslora: bool,
) -> dict[str, Any]:
    """Fields of PEFT's configuration that add LoRA to experts; {} if they get none.

    Their scaling is that of the linear layers, whatever their rank is.

    Args:
        model: The base.
        layers: Numbers of the decoder layers; None: all.
        expert_rank: Rank of each expert.
        rank: Of the linear layers.
        alpha: Of the linear layers.
        use_rslora: Whether updates are scaled by alpha / sqrt(rank) instead of alpha / rank.
    """
    if not expert_rank or not getattr(model, "lora_on_experts", False):
        return {}
    names = [w.name for w in fused_weights(model) if layers is None or _layer(w.name) in layers]
    fields: dict[str, Any] = {"target_parameters": names}
    if expert_rank != rank:
        share = expert_rank / rank
        patterns = sorted({".".join(name.split(".")[-2:]) for name in names})
        fields["rank_pattern"] = dict.fromkeys(patterns, expert_rank)
        scaled = alpha * (math.sqrt(share) if use_rslora else share)
        fields["alpha_pattern"] = dict.fromkeys(patterns, scaled)
    return fields


def _layer(name: str) -> int:
    """The number of the layer that a parameter belongs to."""
    return int(next(part for part in name.split(".") if part.isdigit()))


def finish(tuned: Any, dropout: float) -> None:
    """Set what PEFT's configuration can't hold beside experts: dropout on the linear layers."""
    use_own_forward(tuned)
    for module in tuned.modules():
        if dropout and isinstance(module, LoraLayer) and not isinstance(module, ParamWrapper):
            module.lora_dropout["default"] = nn.Dropout(dropout)
