"""Qwen2, Qwen2.5 and Qwen3."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

# Qwen2 and Qwen2.5: Llama's layer with biases on the queries, keys and values.
QWEN2 = Architecture("qwen2", DecoderLayer("Qwen2DecoderLayer", window="layer"))

# Qwen3: Llama's layer with norms on the heads of queries and keys.
QWEN3 = Architecture("qwen3", DecoderLayer("Qwen3DecoderLayer", head_norms=True, window="layer"))
