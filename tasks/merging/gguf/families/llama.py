"""Llama."""

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily

LLAMA = GgufFamily(
    model_type="llama",
    architecture=MODEL_ARCH.LLAMA,
    parameters={"add_layer_norm_rms_eps": "rms_norm_eps"},
    writes_head_size=True,
    interleaved={"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"},
)
