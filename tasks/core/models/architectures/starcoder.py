"""StarCoder 1 (GPT-BigCode, SantaCoder) and 2."""

from tasks.core.models.architectures.protocol import (
    Architecture,
    DecoderLayer,
    LayerNorms,
    LinearLayer,
)

# GPT-BigCode (StarCoder 1, SantaCoder): learned positions and one key head for all queries.
GPT_BIGCODE = Architecture(
    "gpt_bigcode",
    DecoderLayer(
        "GPTBigCodeBlock",
        attention="attn",
        qkv=(LinearLayer("c_attn", "hidden", "qkv"),),
        out=(LinearLayer("c_proj", "queries", "hidden"),),
        gate_up=(LinearLayer("c_fc", "hidden", "inner"),),
        down=(LinearLayer("c_proj", "inner", "hidden"),),
        norms=LayerNorms("ln_1", mlp="ln_2"),
        activation="activation_function",
        rotates=False,
        grouped_heads="multi_query",
    ),
    layers="h",
    last_norm="ln_f",
    positions="wpe",
    fields={
        "hidden_size": "n_embd",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "intermediate_size": "n_inner",
    },
)

# StarCoder2: LayerNorm, biases, a plain MLP with GELU, and a sliding window.
STARCODER2 = Architecture(
    "starcoder2",
    DecoderLayer(
        "Starcoder2DecoderLayer",
        gate_up=(LinearLayer("c_fc", "hidden", "inner"),),
        down=(LinearLayer("c_proj", "inner", "hidden"),),
        window="config",
    ),
)
