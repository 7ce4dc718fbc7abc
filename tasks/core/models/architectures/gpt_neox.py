"""GPT-NeoX and Pythia: a plain MLP beside attention, each with a norm of the layer's input."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer, LinearLayer

GPT_NEOX = Architecture(
    "gpt_neox",
    DecoderLayer(
        "GPTNeoXLayer",
        attention="attention",
        qkv=(LinearLayer("query_key_value", "hidden", "qkv"),),
        out=(LinearLayer("dense", "queries", "hidden"),),
        gate_up=(LinearLayer("dense_h_to_4h", "hidden", "inner"),),
        down=(LinearLayer("dense_4h_to_h", "inner", "hidden"),),
        parallel="use_parallel_residual",
        parallel_norm="post_attention_layernorm",
        grouped_heads=True,
    ),
    last_norm="final_layer_norm",
    fields={"num_key_value_heads": "num_attention_heads"},
)
