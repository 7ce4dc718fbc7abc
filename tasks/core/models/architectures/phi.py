"""Phi-1 to Phi-4."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer, LinearLayer

# Phi-1, 1.5 and 2: a plain MLP beside attention, one norm for both, a head with a bias.
PHI = Architecture(
    "phi",
    DecoderLayer(
        "PhiDecoderLayer",
        out=(LinearLayer("dense", "queries", "hidden"),),
        gate_up=(LinearLayer("fc1", "hidden", "inner"),),
        down=(LinearLayer("fc2", "inner", "hidden"),),
        head_norms="qk_layernorm",
        parallel=True,
    ),
    last_norm="final_layernorm",
)

# Phi-3 and Phi-4: Llama's layer with q, k, v in one projection, and gate and up in another.
PHI3 = Architecture(
    "phi3",
    DecoderLayer(
        "Phi3DecoderLayer",
        qkv=(LinearLayer("qkv_proj", "hidden", "qkv"),),
        gate_up=(LinearLayer("gate_up_proj", "hidden", "gate_up"),),
        window="config",
    ),
)
