"""Gemma 1 to 3: norms whose weights are offsets from 1, and GELU."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer, LayerNorms

# Gemma 1: Llama's layer with norms whose weights are offsets from 1, and GELU.
GEMMA = Architecture("gemma", DecoderLayer("GemmaDecoderLayer", norm_offset=1.0))

# Gemma 2: norms before and after each branch, a window in every second layer, soft caps.
GEMMA_NORMS = LayerNorms(
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
GEMMA2 = Architecture(
    "gemma2",
    DecoderLayer(
        "Gemma2DecoderLayer",
        norms=GEMMA_NORMS,
        norm_offset=1.0,
        activation="hidden_activation",
        window="layer",
        attention_cap="attn_logit_softcapping",
    ),
    logits_cap="final_logit_softcapping",
)

# Gemma 3: norms as in Gemma 2 and on heads; local layers have a window and another rotation.
GEMMA3_TEXT = Architecture(
    "gemma3_text",
    DecoderLayer(
        "Gemma3DecoderLayer",
        norms=GEMMA_NORMS,
        norm_offset=1.0,
        head_norms=True,
        activation="hidden_activation",
        rotation_by_type=True,
        window="layer",
    ),
    logits_cap="final_logit_softcapping",
)
