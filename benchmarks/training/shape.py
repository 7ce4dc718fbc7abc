"""A random 4-bit model of stable-code-3b's size, created on the GPU layer by layer, and rows.

No 16-bit copy of the whole model exists at any time, so that the memory cap holds from the start.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.random_model import SHAPE
from tasks.core.models.loading import without_dropout
from tasks.core.models.packed_dataset import IGNORED, Window

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
PLAIN_MLP = {"intermediate_size": 10_240, "n_inner": 10_240}  # without gates, as many weights
GEMMA_HEADS = {"head_dim": 256, "num_attention_heads": 10, "num_key_value_heads": 10}
# families of the fast path, by how they differ from a Llama of the same size
FAMILIES: dict[str, dict[str, Any]] = {
    "stablelm": {"partial_rotary_factor": SHAPE["partial_rotary_factor"]},
    **{name: {} for name in ("llama", "mistral", "qwen2", "smollm3", "granite", "phi3")},
    **{name: {} for name in ("olmo2", "cohere", "cohere2")},
    **dict.fromkeys(("starcoder2", "gpt_neox", "gpt_bigcode", "phi"), PLAIN_MLP),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), GEMMA_HEADS),
    "qwen3": {"head_dim": 80},
}
MEDIAN_TOKENS, SIGMA, SHORTEST, LONGEST = 220, 0.8, 32, 2048


def make_model(
    kind: str = "stablelm", *, device: str = "cuda", changes: dict[str, Any] | None = None
) -> Any:
    """Random NF4 weights on the GPU, double quantized; embeddings, head and norms in bfloat16.

    Args:
        kind: A key of `FAMILIES`; all have the same size.
        device: cuda, or cpu for a smoke test.
        changes: Arguments of the configuration that differ.
    """
    import bitsandbytes as bnb
    from transformers import AutoModelForCausalLM

    from tasks.core.models.packed_attention import PACKED, has_varlen, register_packed_attention

    register_packed_attention()
    torch.manual_seed(0)
    config = _config(kind, **{"pad_token_id": None} | (changes or {}))
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(without_dropout(config))
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            parent, _, last = name.rpartition(".")
            linear = bnb.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=module.bias is not None,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
                device="meta",
            )
            values = torch.randn(module.weight.shape, dtype=torch.bfloat16, device=device) * 0.02
            linear.weight = bnb.nn.Params4bit(
                values, requires_grad=False, quant_type="nf4", module=linear
            ).to(device)
            setattr(model.get_submodule(parent), last, linear)
    for module in list(model.modules()):
        for key, value in list(module.named_parameters(recurse=False)):
            if value.device.type == "meta":
                filled = torch.ones(value.shape, dtype=torch.bfloat16, device=device)
                if value.ndim > 1:
                    filled.normal_(std=0.02)
                elif key == "bias":
                    filled.zero_()
                setattr(module, key, torch.nn.Parameter(filled, requires_grad=False))
    for module in model.modules():  # buffers that a load would compute
        if hasattr(module, "rotary_emb"):
            module.rotary_emb = type(module.rotary_emb)(model.config).to(device)
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, device=device)
    model.is_loaded_in_4bit = True
    if has_varlen(torch.device(device)):
        model.set_attn_implementation(PACKED)
    return model.eval()


def write_model(folder: Path, kind: str) -> None:
    """Write config and random bfloat16 weights of a family of `FAMILIES` into `folder`."""
    from transformers import AutoModelForCausalLM

    config = _config(kind, dtype="bfloat16")
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


def _config(kind: str, **changes: Any) -> Any:
    """The configuration of a family of `FAMILIES`."""
    from transformers import AutoConfig

    own = ("partial_rotary_factor", "use_qkv_bias", "model_type")
    shape = {name: value for name, value in SHAPE.items() if name not in own}
    return AutoConfig.for_model(kind, **shape | FAMILIES[kind] | changes)


def row_lengths(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Lengths of code rows: lognormal, cut at both ends."""
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(np.log(MEDIAN_TOKENS), SIGMA, count)
    return np.clip(lengths, SHORTEST, LONGEST).astype(np.int64)


def window_of(lengths: list[int], seed: int) -> Window:
    """Samples of these lengths; a loss on every token but the first of each."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, SHAPE["vocab_size"], sum(lengths))  # type: ignore[call-overload]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    labels = ids.copy()
    labels[bounds[:-1]] = IGNORED
    positions = np.concatenate([np.arange(n) for n in lengths])
    names = tuple(str(i) for i in range(len(lengths)))
    return Window(ids, labels, positions, bounds.astype(np.int32), names)


def packed_windows(window_tokens: int, seed: int = 0) -> Iterator[Window]:
    """Windows of rows, filled one after another with what still fits."""
    lengths = row_lengths(100_000, seed).tolist()
    number = 0
    while lengths:
        taken: list[int] = []
        room = window_tokens
        for i in range(len(lengths) - 1, max(-1, len(lengths) - 200), -1):
            if lengths[i] <= room:
                room -= lengths[i]
                taken.append(lengths.pop(i))
        yield window_of(taken, number)
        number += 1


def joined_rows(rows: int, seed: int = 0) -> Iterator[Window]:
    """Windows of `rows` rows each, whatever their lengths."""
    lengths = row_lengths(100_000, seed).tolist()
    for start in range(0, len(lengths), rows):
        yield window_of(lengths[start : start + rows], start)
