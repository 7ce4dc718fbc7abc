"""GPT-NeoX and Pythia, whose fused projection has q, k and v of one head side by side."""

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily, RowOrder

GPT_NEOX = GgufFamily(
    model_type="gpt_neox",
    architecture=MODEL_ARCH.GPTNEOX,
    parameters={
        "add_layer_norm_eps": "layer_norm_eps",
        "add_parallel_residual": "use_parallel_residual",
    },
    # llama.cpp stores q of all heads, then k, then v
    orders={"attn_qkv": RowOrder("num_attention_heads", 3, (0, 1))},
    # llama.cpp approximates "gelu", as its authors do for the released models
    required={"hidden_act": ("gelu", "gelu_new", "gelu_fast"), "attention_bias": (True,)},
)
