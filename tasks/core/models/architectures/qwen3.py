"""Qwen3: Llama's layer with norms on the heads of queries and keys."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

QWEN3 = Architecture("qwen3", DecoderLayer("Qwen3DecoderLayer", head_norms=True))
