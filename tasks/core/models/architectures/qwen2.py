"""Qwen2 and Qwen2.5: Llama's layer with biases on the queries, keys and values."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

QWEN2 = Architecture("qwen2", DecoderLayer("Qwen2DecoderLayer"))
