"""Tiny bases and tokenized splits that training can learn from in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from tasks.core.models.loading import without_dropout
from tasks.core.models.packed_dataset import IGNORED, Window
from tasks.core.models.packed_forward import decoder_of
from tasks.core.models.traits.own_head import OwnHead
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.training import STAGE

VOCABULARY = 96
# functions of kernel_checks.py that run in Triton's interpreter, too
KERNEL_CASES = (
    "load_weight",
    "norms",
    "head_norms",
    "norm_rope",
    "lora_in",
    "lora_in_backward",
    "lora_out_backward",
    "rope",
    "attention",
    "activation",
    "backward8",
    "cross_entropy",
    "whole_step",
)
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


GEMMA: dict[str, Any] = {"head_dim": 32, "pad_token_id": None, "query_pre_attn_scalar": 20}
# rows of the tests are longer than the windows
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen2 with a window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1], "pad_token_id": None}),
    "granite": (
        "granite",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.1}
        | {"residual_multiplier": 0.5, "logits_scaling": 2.0},
    ),
    "phi3": ("phi3", {"partial_rotary_factor": 0.5, "pad_token_id": None}),
    "mistral": ("mistral", {"sliding_window": 5}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "stablelm in parallel": ("stablelm", {"use_parallel_residual": True, "use_qkv_bias": True}),
    "stablelm with norms of heads": ("stablelm", {"qk_layernorm": True}),
    "starcoder2": ("starcoder2", {"sliding_window": 7}),
    "gpt_bigcode": ("gpt_bigcode", {"activation_function": "gelu"}),
    "gpt_bigcode with all keys": ("gpt_bigcode", {"multi_query": False}),
    "gpt_neox": ("gpt_neox", {"hidden_act": "gelu", "rotary_pct": 0.5}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "gemma": ("gemma", {"head_dim": 32, "pad_token_id": None}),
    "gemma2": (
        "gemma2",
        GEMMA
        | {"sliding_window": 5, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    ),
    "gemma3_text": (
        "gemma3_text",
        GEMMA
        | {"sliding_window": 5}
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "phi": ("phi", {"pad_token_id": None}),
    "phi with norms of heads": ("phi", {"qk_layernorm": True, "pad_token_id": None}),
    "olmo2": ("olmo2", {"pad_token_id": None}),
    "cohere": ("cohere", {"logit_scale": 0.5, "pad_token_id": None}),
    "cohere with norms of heads": ("cohere", {"use_qk_norm": True, "pad_token_id": None}),
    "cohere2": (
        "cohere2",
        {"sliding_window": 5, "logit_scale": 0.5, "head_dim": 16, "pad_token_id": None}
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
}


def family(kind: str) -> Any:
    torch.manual_seed(0)
    model_type, options = FAMILIES[kind]
    config = without_dropout(
        AutoConfig.for_model(model_type, **SHAPE, num_key_value_heads=2, **options)
    )
    kernel = "eager" if "attn_logit_softcapping" in options else "sdpa"  # sdpa ignores the cap
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=kernel
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms of ones and biases of zeros would hide a mistake
            one = "norm" in name and not model_type.startswith("gemma")
            torch.nn.init.normal_(parameter, mean=float(one), std=0.2)
    model.linear_head = OwnHead(model, decoder_of(model)).is_linear()  # as `load_model` does
    return model


def tiny(kind: str) -> Any:
    if kind in FAMILIES:
        return family(kind)
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2))
    return StableLmForCausalLM(StableLmConfig(**SHAPE, num_key_value_heads=4))


def make_window(*lengths: int, prompt: int = 2, seed: int = 0) -> Window:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY, sum(lengths))
    labels = ids.copy()
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for start in starts[:-1]:
        labels[start : start + prompt] = IGNORED
    positions = np.concatenate([np.arange(n) for n in lengths])
    names = tuple(str(i) for i in range(len(lengths)))
    return Window(ids, labels, positions, starts.astype(np.int32), names)


def write_split(folder: Path, rows: int, *, masked: bool = False, seed: int = 0) -> Path:
    """Rows that count upwards from a random start, two rows a window."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tokens = [
        (np.arange(int(rng.integers(6, 14))) + int(rng.integers(VOCABULARY))) % VOCABULARY
        for _ in range(rows)
    ]
    prompts = [len(t) if masked else 2 for t in tokens]
    table = pa.table(
        [[f"r{i}" for i in range(rows)], [t.tolist() for t in tokens], prompts],
        schema=row_schema.TOKENS,
    )
    pq.write_table(table, folder / "rows.parquet", row_group_size=8)
    plan = [list(range(i, min(i + 2, rows))) for i in range(0, rows, 2)]
    sizes = [sum(len(tokens[r]) for r in window) for window in plan]
    windows = pa.table([range(len(plan)), plan, sizes], schema=row_schema.WINDOWS)
    pq.write_table(windows, folder / "windows.parquet")
    return folder


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for kind in ("llama", "stablelm"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        model = tiny(kind)
        with torch.no_grad():  # a frozen random head of its usual size limits what can be learned
            model.lm_head.weight.mul_(6)
        model.save_pretrained(folders[kind])
    return folders


SETTINGS: dict[str, Any] = {
    "quantization": "none",
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "max_steps": 12,
    "checkpoint_every": 1000,
}

RunStage = Callable[..., tuple[Summary, Work]]


@pytest.fixture
def run_stage(tmp_path: Path, bases: dict[str, Path]) -> RunStage:
    """Run the stage on 30 rows; the same `name` reuses the same folders."""

    def run(
        name: str = "a",
        kind: str = "llama",
        masked: bool = False,
        hardware: dict[str, Any] | None = None,
        **settings: Any,
    ) -> tuple[Summary, Work]:
        data = tmp_path / f"data-{masked}"
        if not data.exists():
            write_split(data / "train", 30, masked=masked)
            write_split(data / "validation", 6, seed=1)
        inputs = {
            "tokenize.train": data / "train",
            "tokenize.validation": data / "validation",
            "base.weights": bases[kind],
            "base.tokenizer": bases[kind],
        }
        work = Work(tmp_path / name / "out", tmp_path / name / "scratch")
        work.out.mkdir(parents=True, exist_ok=True)
        work.scratch.mkdir(parents=True, exist_ok=True)
        machine = {"device": "cpu"} | (hardware or {})
        config = check({"train": SETTINGS | settings, "hardware": machine})
        return STAGE.load_run()(View(config, STAGE.reads, STAGE.name), inputs, work), work

    return run
