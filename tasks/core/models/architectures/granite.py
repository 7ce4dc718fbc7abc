"""Granite 3: Llama's layer, with multipliers of embedding, attention, residuals and logits."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

GRANITE = Architecture(
    "granite",
    DecoderLayer(
        "GraniteDecoderLayer",
        branch_scale="residual_multiplier",
        embedding_scale="embedding_multiplier",
        logits_divisor="logits_scaling",
    ),
)
