"""StarCoder 1 (type gpt_bigcode) and StarCoder 2."""

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily

GPT_BIGCODE = GgufFamily(
    model_type="gpt_bigcode",
    architecture=MODEL_ARCH.STARCODER,
    parameters={"add_layer_norm_eps": "layer_norm_epsilon"},
    required={
        "activation_function": ("gelu_pytorch_tanh", "gelu_new"),
        "multi_query": (True,),
        "scale_attn_weights": (True,),
    },
)
STARCODER2 = GgufFamily(
    model_type="starcoder2",
    architecture=MODEL_ARCH.STARCODER2,
    parameters={"add_layer_norm_eps": "norm_epsilon"},
    required={
        "hidden_act": ("gelu_pytorch_tanh", "gelu_new"),
        "use_bias": (True,),
        "norm_type": ("layer_norm",),
    },
)
