"""Phi-1, Phi-1.5 and Phi-2; Phi-3 and Phi-4, whose projections are fused in both programs."""

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily

PHI = GgufFamily(
    model_type="phi",
    architecture=MODEL_ARCH.PHI2,
    parameters={"add_layer_norm_eps": "layer_norm_eps"},
    required={"hidden_act": ("gelu_new", "gelu_pytorch_tanh"), "qk_layernorm": (False,)},
)
PHI3 = GgufFamily(
    model_type="phi3",
    architecture=MODEL_ARCH.PHI3,
    parameters={"add_layer_norm_rms_eps": "rms_norm_eps"},
    required={"hidden_act": ("silu",)},
)
