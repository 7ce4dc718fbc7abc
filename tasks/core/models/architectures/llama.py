"""Llama and the many models of its type (Code Llama, DeepSeek Coder, SmolLM 1 and 2)."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

LLAMA = Architecture("llama", DecoderLayer("LlamaDecoderLayer"))
