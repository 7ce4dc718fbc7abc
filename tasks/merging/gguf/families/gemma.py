"""Gemma 1 to 3: norms that multiply by 1 + weight; windows in some layers since Gemma 2."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily

GEMMA = GgufFamily(
    model_type="gemma",
    architecture=MODEL_ARCH.GEMMA,
    parameters={"add_layer_norm_rms_eps": "rms_norm_eps"},
    norm_offset=1.0,
    # Gemma 1's configs name the exact function, and transformers computes the approximation
    required={"tie_word_embeddings": (True,), "attention_bias": (False,)},
)


def _scaled(layers_of_27b: int) -> Callable[[Any], str]:
    """llama.cpp scales by the size of a head, and identifies the 27B model by its layers."""

    def unsupported(config: Any) -> str:
        scale = config.head_dim
        if config.num_hidden_layers == layers_of_27b:
            scale = config.hidden_size // config.num_attention_heads
        found = config.query_pre_attn_scalar
        return "" if found == scale else f"query_pre_attn_scalar {found} instead of {scale}"

    return unsupported


GEMMA2 = replace(
    GEMMA,
    model_type="gemma2",
    architecture=MODEL_ARCH.GEMMA2,
    parameters={
        **GEMMA.parameters,
        "add_sliding_window": "sliding_window",
        "add_attn_logit_softcapping": "attn_logit_softcapping",
        "add_final_logit_softcapping": "final_logit_softcapping",
    },
    window_period=2,
    unsupported=_scaled(46),
)
GEMMA3 = replace(
    GEMMA,
    model_type="gemma3_text",
    architecture=MODEL_ARCH.GEMMA3,
    parameters={**GEMMA.parameters, "add_sliding_window": "sliding_window"},
    window_period=6,
    required={"attn_logit_softcapping": (None,), "final_logit_softcapping": (None,)},
    unsupported=_scaled(62),
)
