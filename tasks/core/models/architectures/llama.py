"""Llama and models with its layer: Mistral, SmolLM3, Granite 3."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

# Llama and the many models of its type (Code Llama, DeepSeek Coder, SmolLM 1 and 2).
LLAMA = Architecture("llama", DecoderLayer("LlamaDecoderLayer"))

# Mistral: Llama's layer; some configs set a sliding window.
MISTRAL = Architecture("mistral", DecoderLayer("MistralDecoderLayer", window="config"))

# SmolLM3: Llama's layer, without rotation in every fourth one.
SMOLLM3 = Architecture(
    "smollm3", DecoderLayer("SmolLM3DecoderLayer", rotates="use_rope", window="layer")
)

# Granite 3: Llama's layer, with multipliers of embedding, attention, residuals and logits.
GRANITE = Architecture(
    "granite",
    DecoderLayer("GraniteDecoderLayer", branch_scale="residual_multiplier"),
    embedding_scale="embedding_multiplier",
    logits_divisor="logits_scaling",
)
