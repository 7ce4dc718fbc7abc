"""Tiny random models of many families: configs for the tests of the stage `base` and the docs.

A family is a `model_type` of transformers and what its config needs beyond the small shape.
"""

from typing import Any

from transformers import AutoConfig

VOCABULARY = 260  # bytes, the end of a text, three tokens for infilling
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "head_dim": 16,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GPT: dict[str, Any] = {
    **{"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}
LINEAR: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
MAMBA: dict[str, Any] = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_d_ssm": 128,
    "mamba_chunk_size": 16,
}
FAMILIES: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("llama", "mistral", "qwen2", "qwen3", "stablelm", "smollm3")},
    **{name: {} for name in ("gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo2")},
    **{name: {} for name in ("starcoder2", "gpt_neox", "granite", "cohere", "cohere2")},
    "opt": {"dropout": 0.0},
    "gpt_bigcode": GPT,
    "gpt2": GPT,
    "gptj": GPT | {"rotary_dim": 8},
    "codegen": GPT | {"rotary_dim": 8},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "falcon": {"new_decoder_architecture": False, "alibi": True},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "olmo_hybrid": LINEAR,
    "qwen3_next": LINEAR | EXPERTS,
    "qwen3_5_text": LINEAR,
    "granitemoehybrid": MAMBA | EXPERTS | {"layer_types": ["mamba", "attention"]},
    "falcon_h1": MAMBA | {"lm_head_multiplier": 0.5},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64},
    "mamba": {},
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS,
    "gpt_oss": EXPERTS,
    "deepseek_v3": EXPERTS
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
    | {"qk_rope_head_dim": 8, "head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    | {"kv_lora_rank": 16, "q_lora_rank": 16, "num_key_value_heads": 4},
    "bert": {"is_decoder": False},
}
# types that no code of the project names
HELD_OUT = ("olmo3", "glm4", "exaone4", "nanochat", "apertus", "helium")


def tiny_config(model_type: str) -> Any:
    """The config of a family's tiny model."""
    known = AutoConfig.for_model(model_type).to_dict()
    fields = {name: value for name, value in SHAPE.items() if name in known}
    return AutoConfig.for_model(
        model_type, **fields | FAMILIES.get(model_type, {}) | {"vocab_size": VOCABULARY}
    )
