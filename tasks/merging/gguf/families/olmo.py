"""OLMo 2: norms after attention and MLP, and on all heads of q and k together."""

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily

OLMO2 = GgufFamily(
    model_type="olmo2",
    architecture=MODEL_ARCH.OLMO2,
    parameters={"add_layer_norm_rms_eps": "rms_norm_eps"},
    required={"hidden_act": ("silu",), "attention_bias": (False,)},
)
