"""All architectures that the pipeline knows by name. Others train by the plain path."""

from typing import Any

from tasks.core.models.architectures.granite import GRANITE
from tasks.core.models.architectures.llama import LLAMA
from tasks.core.models.architectures.mistral import MISTRAL
from tasks.core.models.architectures.phi3 import PHI3
from tasks.core.models.architectures.protocol import Architecture
from tasks.core.models.architectures.qwen2 import QWEN2
from tasks.core.models.architectures.qwen3 import QWEN3
from tasks.core.models.architectures.smollm3 import SMOLLM3
from tasks.core.models.architectures.stablelm import STABLELM

# options of the known layers that the fast path does not implement
PLAIN_IF_SET = (
    *("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "qk_layernorm"),
)
ARCHITECTURES = (LLAMA, MISTRAL, QWEN2, QWEN3, STABLELM, SMOLLM3, GRANITE, PHI3)


def architecture_of(model_type: str) -> Architecture | None:
    """The architecture of a config's `model_type`; None for one that is not in the table."""
    return next((known for known in ARCHITECTURES if known.model_type == model_type), None)


def applied_window(config: Any) -> int:
    """The sliding window of a model, which the fast path takes for rows that fit into it; or 0."""
    used = getattr(config, "use_sliding_window", True)
    return int(getattr(config, "sliding_window", None) or 0) if used else 0


def plain_reason(config: Any) -> str:
    """Why a model takes the plain path, from its config as transformers reads it; "" for the fast.

    The fast path checks the loaded model itself; this is for a report before the training.
    """
    if architecture_of(config.model_type) is None:
        return f"there is no fast path for models of type {config.model_type}"
    found = {name: getattr(config, name, None) for name in PLAIN_IF_SET}
    if (activation := getattr(config, "hidden_act", "silu")) != "silu":
        found["hidden_act"] = activation
    return ", ".join(f"{name} is {value}" for name, value in found.items() if value)
