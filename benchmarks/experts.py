"""Forecast of GPU memory for published mixtures of experts, as `finetune plan` makes it.

    python -m benchmarks.experts [--tokens 4096]

From the shapes alone: no weights are read.
"""

import argparse
from typing import Any

from torch import nn
from transformers import AutoConfig

from tasks.base.model_check import check_architecture
from tasks.base.model_report import counts
from tasks.base.reduced_model import reduced_configs
from tasks.core.models.experts.fused import fused_weights
from tasks.core.models.experts.gpu_memory import estimate, weight_gib
from tasks.core.models.experts.rank import expert_rank
from tasks.core.models.loading import on_meta
from tasks.core.models.pretrained import quiet
from tasks.core.settings.config import check

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Granite-3.1-1B-A400M": (
        "granitemoe",
        {"hidden_size": 1024, "intermediate_size": 512, "num_hidden_layers": 24}
        | {"num_attention_heads": 16, "num_key_value_heads": 8, "num_local_experts": 32}
        | {"num_experts_per_tok": 8, "vocab_size": 49155, "tie_word_embeddings": True},
    ),
    "Granite-3.1-3B-A800M": (
        "granitemoe",
        {"hidden_size": 1536, "intermediate_size": 512, "num_hidden_layers": 32}
        | {"num_attention_heads": 24, "num_key_value_heads": 8, "num_local_experts": 40}
        | {"num_experts_per_tok": 8, "vocab_size": 49155, "tie_word_embeddings": True},
    ),
    "OLMoE-1B-7B": (
        "olmoe",
        {"hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16}
        | {"num_experts": 64, "num_experts_per_tok": 8, "vocab_size": 50304, "pad_token_id": 1},
    ),
    "Qwen1.5-MoE-A2.7B": (
        "qwen2_moe",
        {"hidden_size": 2048, "moe_intermediate_size": 1408, "num_hidden_layers": 24}
        | {"num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 60}
        | {"num_experts_per_tok": 4, "shared_expert_intermediate_size": 5632, "vocab_size": 151936},
    ),
    "DeepSeek-V2-Lite": (
        "deepseek_v2",
        {"hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408}
        | {"num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16}
        | {"n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2}
        | {"first_k_dense_replace": 1, "kv_lora_rank": 512, "q_lora_rank": None, "n_group": 1}
        | {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "topk_group": 1}
        | {"vocab_size": 102400, "topk_method": "greedy"},
    ),
    "gpt-oss-20b": (
        "gpt_oss",
        {"num_hidden_layers": 24, "num_local_experts": 32, "num_experts_per_tok": 4},
    ),
    "Qwen3-30B-A3B": (
        "qwen3_moe",
        {"hidden_size": 2048, "moe_intermediate_size": 768, "num_hidden_layers": 48}
        | {"num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128}
        | {"num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936},
    ),
}


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, default=4096, help="of the longest window")
    tokens = options.parse_args().tokens
    train = check({}).train
    print(
        "| model | layers | experts | active | parameters M | in experts M | experts GiB in 4 bit "
        "| weights GiB | LoRA rank | trained in experts M | training GiB |"
    )
    print("|---|" + "--:|" * 10)
    for name, (kind, fields) in SHAPES.items():
        config = AutoConfig.for_model(kind, **fields)
        with quiet():
            whole = on_meta(config)
            found = check_architecture(reduced_configs(config, whole))
        linear = [
            module
            for path, module in whole.named_modules()
            if isinstance(module, nn.Linear) and path.rpartition(".")[2] in found.lora
        ]
        checks = counts(whole, linear, list(fused_weights(whole)) if found.experts else [])
        experts = checks["experts"]
        rank = expert_rank(train, experts["active"])
        only = {"linear_parameters": 0, "unreached_parameters": 0, "experts": experts}
        only["parameters"] = experts["parameters"]
        print(
            f"| {name} | {experts['layers']} | {experts['each']} | {experts['active']} "
            f"| {checks['parameters'] / 1e6:,.0f} | {experts['parameters'] / 1e6:,.0f} "
            f"| {weight_gib(only, train):.1f} | {weight_gib(checks, train):.1f} | {rank} "
            f"| {rank * experts['lora_per_rank'] / 1e6:.1f} "
            f"| {estimate(checks, train, tokens, None).base_gib:.1f} |"
        )


if __name__ == "__main__":
    main()
