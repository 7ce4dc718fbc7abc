"""Registry of the architectures with a fast path. Others train by the plain path."""

from typing import Any

from tasks.core.models.architectures.cohere import COHERE, COHERE2
from tasks.core.models.architectures.gemma import GEMMA, GEMMA2, GEMMA3_TEXT
from tasks.core.models.architectures.gpt_neox import GPT_NEOX
from tasks.core.models.architectures.llama import GRANITE, LLAMA, MISTRAL, SMOLLM3
from tasks.core.models.architectures.olmo import OLMO2
from tasks.core.models.architectures.phi import PHI, PHI3
from tasks.core.models.architectures.protocol import Architecture
from tasks.core.models.architectures.qwen import QWEN2, QWEN3
from tasks.core.models.architectures.stablelm import STABLELM
from tasks.core.models.architectures.starcoder import GPT_BIGCODE, STARCODER2

ARCHITECTURES = (
    *(LLAMA, MISTRAL, QWEN2, QWEN3, STABLELM, SMOLLM3, GRANITE, PHI, PHI3),
    *(STARCODER2, GPT_BIGCODE, GPT_NEOX, GEMMA, GEMMA2, GEMMA3_TEXT, OLMO2, COHERE, COHERE2),
)
# options of the known layers that the fast path does not implement
PLAIN_IF_SET = ("use_bidirectional_attention", "add_cross_attention")
# a config's name of the MLP's activation -> the fast path's
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}


def architecture_of(model_type: str) -> Architecture | None:
    """The architecture of a config's `model_type`; None for one that is not in the table."""
    return next((known for known in ARCHITECTURES if known.model_type == model_type), None)


def plain_reason(config: Any) -> str:
    """Why a model takes the plain path, from its config as transformers reads it; "" for the fast.

    The fast path checks the loaded model itself; this is for a report before the training.
    """
    known = architecture_of(config.model_type)
    if known is None:
        return f"there is no fast path for models of type {config.model_type}"
    found = {name: getattr(config, name, None) for name in PLAIN_IF_SET}
    activation = getattr(config, known.layer.activation)
    if activation not in ACTIVATIONS:
        found[known.layer.activation] = activation
    return ", ".join(f"{name} is {value}" for name, value in found.items() if value)
