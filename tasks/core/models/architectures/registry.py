"""All architectures that the pipeline knows by name. Others train by the plain path."""

from typing import Any

from tasks.core.models.architectures.llama import LLAMA
from tasks.core.models.architectures.mistral import MISTRAL
from tasks.core.models.architectures.protocol import Architecture
from tasks.core.models.architectures.qwen2 import QWEN2
from tasks.core.models.architectures.stablelm import STABLELM

# options of the known layers that the fast path does not implement
_PLAIN_IF_SET = (
    *("attention_dropout", "hidden_dropout", "use_parallel_residual", "qk_layernorm"),
    *("attention_bias", "mlp_bias"),
)
ARCHITECTURES = (LLAMA, MISTRAL, QWEN2, STABLELM)


def architecture_of(model_type: str) -> Architecture | None:
    """The architecture of a config's `model_type`; None for one that is not in the table."""
    return next((known for known in ARCHITECTURES if known.model_type == model_type), None)


def plain_reason(config: Any) -> str:
    """Why a model takes the plain path, from its config as transformers reads it; "" for the fast.

    The fast path checks the loaded model itself; this is for a report before the training.
    """
    if architecture_of(config.model_type) is None:
        return f"there is no fast path for models of type {config.model_type}"
    found = {name: getattr(config, name, None) for name in _PLAIN_IF_SET}
    if getattr(config, "use_sliding_window", True):
        found["sliding_window"] = getattr(config, "sliding_window", None)
    if (activation := getattr(config, "hidden_act", "silu")) != "silu":
        found["hidden_act"] = activation
    return ", ".join(f"{name} is {value}" for name, value in found.items() if value)
