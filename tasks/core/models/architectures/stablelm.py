"""StableLM and Stable Code: LayerNorm with biases, rotation of a part of each head."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

STABLELM = Architecture(
    "stablelm",
    DecoderLayer(
        "StableLmDecoderLayer", parallel="use_parallel_residual", head_norms="qk_layernorm"
    ),
)
