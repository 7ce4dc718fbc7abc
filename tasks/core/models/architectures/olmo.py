"""OLMo 2."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer, LayerNorms

# OLMo 2: norms of the outputs of attention and MLP instead of their inputs; of all queries.
OLMO2 = Architecture(
    "olmo2",
    DecoderLayer(
        "Olmo2DecoderLayer",
        norms=LayerNorms("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
        head_norms=True,
    ),
)
