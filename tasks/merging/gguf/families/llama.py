"""Llama, and the families that llama.cpp rotates like it: Mistral, Mixtral, SmolLM3, Granite."""

from dataclasses import replace
from typing import Any

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import ROTATED, GgufFamily

LLAMA = GgufFamily(
    model_type="llama",
    architecture=MODEL_ARCH.LLAMA,
    parameters={"add_layer_norm_rms_eps": "rms_norm_eps"},
    orders=ROTATED,
    required={"hidden_act": ("silu",)},
)
MISTRAL = replace(LLAMA, model_type="mistral")
MIXTRAL = replace(
    LLAMA,
    model_type="mixtral",
    parameters={
        **LLAMA.parameters,
        "add_expert_count": "num_local_experts",
        "add_expert_used_count": "num_experts_per_tok",
    },
)
GRANITE = replace(
    LLAMA,
    model_type="granite",
    architecture=MODEL_ARCH.GRANITE,
    parameters={
        **LLAMA.parameters,
        "add_attention_scale": "attention_multiplier",
        "add_embedding_scale": "embedding_multiplier",
        "add_residual_scale": "residual_multiplier",
        "add_logit_scale": "logits_scaling",
    },
)


def _rotated_layers(config: Any) -> str:
    """llama.cpp rotates three of four layers."""
    rotated = [int((i + 1) % 4 != 0) for i in range(config.num_hidden_layers)]
    same = list(config.no_rope_layers) == rotated
    return "" if same else "rotation in other layers than three of four"


SMOLLM3 = replace(
    LLAMA,
    model_type="smollm3",
    architecture=MODEL_ARCH.SMOLLM3,
    required={**LLAMA.required, "attention_bias": (False,), "mlp_bias": (False,)},
    unsupported=_rotated_layers,
)
