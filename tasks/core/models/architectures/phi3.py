"""Phi-3 and Phi-4: Llama's layer with q, k, v in one projection, and gate and up in another."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer, LinearLayer

PHI3 = Architecture(
    "phi3",
    DecoderLayer(
        "Phi3DecoderLayer",
        qkv=(LinearLayer("qkv_proj", "hidden", "qkv"),),
        gate_up=(LinearLayer("gate_up_proj", "hidden", "gate_up"),),
    ),
)
