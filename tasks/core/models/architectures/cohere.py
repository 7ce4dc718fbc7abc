"""Cohere (Command R, Aya) and Cohere 2 (Command R7B)."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

# Cohere (Command R, Aya): one norm for attention and MLP side by side, scaled logits.
COHERE = Architecture(
    "cohere",
    DecoderLayer(
        "CohereDecoderLayer", head_norms="use_qk_norm", parallel=True, adjacent_pairs=True
    ),
    logits_factor="logit_scale",
)

# Cohere 2 (Command R7B): as Cohere; layers with a window rotate, the others do not.
COHERE2 = Architecture(
    "cohere2",
    DecoderLayer(
        "Cohere2DecoderLayer",
        parallel=True,
        rotates="sliding_window",
        adjacent_pairs=True,
        window="layer",
    ),
    logits_factor="logit_scale",
)
