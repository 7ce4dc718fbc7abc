"""Rotary positions of a GGUF file: hyper-parameters and divisors of the frequencies."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gguf import RopeScalingType
from numpy.typing import NDArray

KINDS = ("default", "linear", "llama3", "yarn", "longrope")
# of yarn; any other value or field is one that llama.cpp does not read from the file
YARN_DEFAULTS = {"beta_fast": 32, "beta_slow": 1, "attention_factor": None, "truncate": True}
Factors = NDArray[np.float32]


def main_rope(config: Any) -> dict[str, Any]:
    """The parameters of the layers with full attention; {} for a model without rotation."""
    rope = getattr(config, "rope_parameters", None) or {}
    return dict(rope.get("full_attention", rope))


def unsupported_rope(config: Any) -> str:
    """What of a model's rotation llama.cpp has no parameter for; "" if nothing."""
    rope = main_rope(config)
    kind = rope.get("rope_type", "default")
    if kind not in KINDS:
        return f"rope_type {kind}"
    if kind == "yarn":
        known = {"rope_type", "rope_theta", "factor", "original_max_position_embeddings"}
        other = {name for name in rope.keys() - known if rope[name] != YARN_DEFAULTS.get(name, "")}
        return f"yarn with {', '.join(sorted(other))}" if other else ""
    return ""


def rope_parameters(config: Any, head_size: int) -> dict[str, Any]:
    """Hyper-parameters as {method of `GGUFWriter`: value}."""
    if not (rope := main_rope(config)):
        return {}
    values = {
        "add_rope_freq_base": float(rope["rope_theta"]),
        "add_rope_dimension_count": rotated_size(config, head_size),
    }
    if sliding := config.rope_parameters.get("sliding_attention"):
        values["add_rope_freq_base_swa"] = float(sliding["rope_theta"])
    kind = rope["rope_type"]
    if kind in {"linear", "yarn"}:
        values["add_rope_scaling_type"] = RopeScalingType(kind)
        values["add_rope_scaling_factor"] = float(rope["factor"])
    if kind in {"yarn", "longrope"}:
        values["add_rope_scaling_orig_ctx_len"] = int(rope["original_max_position_embeddings"])
    if kind == "longrope":
        values["add_rope_scaling_attn_factors"] = _longrope_scale(rope, config)
    return values


def rotated_size(config: Any, head_size: int) -> int:
    """Rotated features of each head."""
    share = main_rope(config).get("partial_rotary_factor")
    if share is None:
        share = getattr(config, "partial_rotary_factor", None)
    return int(head_size * (1.0 if share is None else share))


def rope_tensors(config: Any, head_size: int) -> dict[str, Factors]:
    """Divisors of the frequencies, float32[rotated / 2], by the names of their tensors."""
    rope = main_rope(config)
    if rope.get("rope_type") == "llama3":
        return {"rope_freqs.weight": llama3_factors(rope, head_size)}
    if rope.get("rope_type") == "longrope":
        return {
            f"rope_factors_{which}.weight": np.asarray(rope[f"{which}_factor"], dtype=np.float32)
            for which in ("long", "short")
        }
    return {}


def _longrope_scale(rope: Mapping[str, Any], config: Any) -> float:
    """Scale of the attention, as in transformers' `_compute_longrope_parameters`."""
    original = rope["original_max_position_embeddings"]
    factor = rope.get("factor") or config.max_position_embeddings / original
    if (scale := rope.get("attention_factor")) is not None:
        return float(scale)
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def llama3_factors(rope: Mapping[str, Any], head_size: int) -> Factors:
    """Llama 3.1's divisor of each rotary frequency, float32[head / 2].

    Low frequencies are divided by `factor`, high ones by 1, those between by an interpolation, as
    in transformers' `_compute_llama3_parameters`.
    """
    frequencies = float(rope["rope_theta"]) ** (-np.arange(0, head_size, 2) / head_size)
    rotations = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((rotations - low) / (high - low), 0, 1)
    factors = 1 / ((1 - share) / rope["factor"] + share)
    return np.asarray(factors, dtype=np.float32)
