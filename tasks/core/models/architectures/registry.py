"""All architectures that the pipeline knows by name. Others train by the plain path."""

from tasks.core.models.architectures.llama import LLAMA
from tasks.core.models.architectures.mistral import MISTRAL
from tasks.core.models.architectures.protocol import Architecture
from tasks.core.models.architectures.qwen2 import QWEN2
from tasks.core.models.architectures.stablelm import STABLELM

ARCHITECTURES = (LLAMA, MISTRAL, QWEN2, STABLELM)


def architecture_of(model_type: str) -> Architecture | None:
    """The architecture of a config's `model_type`; None for one that is not in the table."""
    return next((known for known in ARCHITECTURES if known.model_type == model_type), None)
