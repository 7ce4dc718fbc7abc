"""SmolLM3: Llama's layer, without rotation in every fourth one."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

SMOLLM3 = Architecture("smollm3", DecoderLayer("SmolLM3DecoderLayer", rotates="use_rope"))
