"""Cohere's Command R and Aya, which both programs rotate by neighboring rows."""

from typing import Any

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily


def _normed(config: Any) -> str:
    """llama.cpp identifies the model with norms on q and k by its number of layers."""
    same = config.use_qk_norm == (config.num_hidden_layers >= 64)
    return "" if same else f"use_qk_norm and {config.num_hidden_layers} layers"


COHERE = GgufFamily(
    model_type="cohere",
    architecture=MODEL_ARCH.COMMAND_R,
    parameters={"add_layer_norm_eps": "layer_norm_eps", "add_logit_scale": "logit_scale"},
    required={"hidden_act": ("silu",), "attention_bias": (False,), "tie_word_embeddings": (True,)},
    unsupported=_normed,
)
