"""Qwen2, Qwen2.5 and Qwen3, dense and with experts."""

from typing import Any

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily

PARAMETERS = {"add_layer_norm_rms_eps": "rms_norm_eps"}
ACTIVATION = {"hidden_act": ("silu",)}
QWEN2 = GgufFamily("qwen2", MODEL_ARCH.QWEN2, PARAMETERS, required=ACTIVATION)
QWEN3 = GgufFamily(
    "qwen3", MODEL_ARCH.QWEN3, PARAMETERS, required=ACTIVATION | {"attention_bias": (False,)}
)


def _dense_layers(config: Any) -> str:
    """llama.cpp has experts in every layer."""
    dense = bool(config.mlp_only_layers) or config.decoder_sparse_step != 1
    return "layers without experts" if dense else ""


QWEN3_MOE = GgufFamily(
    "qwen3_moe",
    MODEL_ARCH.QWEN3MOE,
    {
        **PARAMETERS,
        "add_expert_count": "num_experts",
        "add_expert_used_count": "num_experts_per_tok",
        "add_expert_feed_forward_length": "moe_intermediate_size",
    },
    required={**QWEN3.required, "norm_topk_prob": (True,)},
    unsupported=_dense_layers,
)
