"""Fused expert weights of a model: [experts, out, in], or [experts, in, out] if transposed.

They are in no linear layer, so that neither bitsandbytes nor PEFT's `target_modules` finds them.
The attributes read here are those of transformers' decorator `use_experts_implementation`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_DECORATED = ("has_gate", "has_bias", "is_transposed", "_apply_gate")


@dataclass(frozen=True)
class FusedWeight:
    """One fused parameter.

    Attributes:
        name: Full name of the parameter.
        experts: Number of experts.
        inputs: Features that an expert reads.
        outputs: Features that it writes.
    """

    name: str
    experts: int
    inputs: int
    outputs: int

    @property
    def values(self) -> int:
        """Number of weights."""
        return self.experts * self.inputs * self.outputs

    def lora_values(self, rank: int) -> int:
        """Trained parameters of LoRA with that rank."""
        return self.experts * rank * (self.inputs + self.outputs)


def split_matrices(a: Tensor, b: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """PEFT's matrices of a fused parameter, by expert.

    Args:
        a: [experts * rank, in].
        b: [out, rank * experts], the expert as the fastest index.
        experts: Number of experts.

    Returns:
        A [experts, rank, in] and B [experts, out, rank].
    """
    a = a.reshape(experts, -1, a.shape[-1])
    return a, b.reshape(b.shape[0], -1, experts).permute(2, 0, 1)


def is_experts(module: nn.Module) -> bool:
    """Whether a module holds fused experts that this package can compute."""
    return all(hasattr(module, name) for name in _DECORATED)


def shape_of(weight: Any) -> tuple[int, int, int]:
    """The shape of a fused weight in 16 or 4 bit."""
    return tuple(getattr(weight, "ds_shape", weight.shape))


def weight_names(module: Any) -> tuple[str, str]:
    """Names of the two fused parameters of a module."""
    return ("gate_up_proj" if module.has_gate else "up_proj", "down_proj")


def fused_weights(model: nn.Module) -> Iterator[FusedWeight]:
    """The fused parameters of a model without LoRA, in 16 or 4 bit."""
    for path, module in model.named_modules():
        if not is_experts(module):
            continue
        for name in weight_names(module):
            parameter = getattr(module, name)
            experts, rows, columns = shape_of(parameter)
            inputs, outputs = (rows, columns) if module.is_transposed else (columns, rows)
            yield FusedWeight(f"{path}.{name}", experts, inputs, outputs)


def values_of(model: nn.Module) -> int:
    """Number of weights in fused parameters."""
    return sum(weight.values for weight in fused_weights(model))


def active_experts(config: Any) -> int:
    """Experts that a token passes in each layer; 1 where the config does not say."""
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts", "moe_k")
    return max(1, *(int(getattr(config, name, None) or 0) for name in names))
