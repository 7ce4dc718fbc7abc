"""GPU memory of a mixture of experts, from the numbers that the stage `base` counted.

Without PyTorch, as `finetune plan` states it. The formulas of `memory_estimate` are of dense models
on the fast path; a mixture of experts runs on the plain path.
"""

from collections.abc import Mapping
from typing import Any

from tasks.core.models.experts.rank import expert_rank
from tasks.core.models.memory_estimate import (
    FLOP_PER_WEIGHT,
    GIB,
    HEAD_VALUES,
    LORA_BYTES,
    OVERHEAD_GIB,
    TFLOPS,
    USED_SHARE,
)
from tasks.core.models.memory_probes import NF4_BYTES, Probe
from tasks.core.settings.train import TrainSettings

SAVED_STREAMS = 8  # tensors of the residual stream's size in the layer that computes, in 16 bit
PLAIN_SPEED = 1 / 4  # of the fast path


def weight_gib(checks: Mapping[str, Any], settings: TrainSettings) -> float:
    """Memory of the frozen weights.

    Args:
        checks: Content of checks.json.
        settings: Of the training.
    """
    wide = 4 if settings.dtype == "float32" else 2
    layers = checks["linear_parameters"] + checks["unreached_parameters"]
    layers += checks["experts"].get("parameters", 0)
    rest = checks["parameters"] - layers
    return (
        float(layers * (NF4_BYTES if settings.quantization == "nf4" else wide) + rest * wide) / GIB
    )


def estimate(
    checks: Mapping[str, Any], settings: TrainSettings, tokens: int, gpu: str | None
) -> Probe:
    """Memory and speed of training with windows of `tokens`; speed 0 for an unknown GPU.

    Args:
        checks: Content of checks.json of a base with experts.
        settings: Of the training.
        tokens: Of the longest window.
        gpu: Its name.
    """
    experts, shape = checks["experts"], checks["shape"]
    active, each = experts["active"], experts["each"]
    rank = expert_rank(settings, active)
    lora = settings.lora_rank * shape["lora_per_rank"] + rank * experts["lora_per_rank"]
    # every layer keeps its input; one layer at a time computes, with one fused weight dequantized
    stream = 2 * tokens * shape["hidden"]
    width = experts["lora_per_rank"] // (each * experts["layers"])  # inputs and outputs, both steps
    layer = SAVED_STREAMS * stream + 2 * 2 * tokens * active * width
    whole = 2 * experts["largest"] if settings.quantization == "nf4" else 0
    logits = 3 * 2 * min(HEAD_VALUES, tokens * shape["vocabulary"])
    step = shape["layers"] * stream + max(layer + whole, logits)
    flops = next((t for name, t in TFLOPS.items() if gpu and name in gpu), 0.0)
    passed = checks["linear_parameters"] + checks["unreached_parameters"]
    passed += experts["parameters"] * active / each
    return Probe(
        window_tokens=tokens,
        step_path="plain",
        layers=shape["layers"],
        load_gib=0.0,
        base_gib=weight_gib(checks, settings) + (lora * LORA_BYTES + step) / GIB + OVERHEAD_GIB,
        layer_gib=0.0,
        kept_layers=0,
        tokens_per_s=PLAIN_SPEED * USED_SHARE * flops * 1e12 / (FLOP_PER_WEIGHT * passed),
    )
