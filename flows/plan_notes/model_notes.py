"""Notes about the base model in a plan, from the report that the stage `base` wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.session import Session
from tasks.core.cache.decision import HIT
from tasks.core.models.experts.rank import expert_rank
from tasks.core.models.memory_probes import NF4_BYTES, Gpu, find_gpu, limit_gib
from tasks.core.settings.config import Config

CHECKS_FILE = "checks.json"
NOT_TRAINED_SHARE = 0.05  # of the parameters outside of the embedding; less is norms and biases


def model_notes(session: Session) -> list[str]:
    """One line for each thing that is unusual about the GPU or the base, if that exists yet."""
    gpu = None if session.config.hardware.device == "cpu" else find_gpu()
    found = _hardware(gpu, session.config) if gpu else []
    plan = next((plan for plan in session.plans if plan.stage.name == "base"), None)
    made = session.planner.artifacts.get("base") or (plan.manifest if plan else None)
    if made is None or (plan is not None and plan.decision != HIT):
        return found
    checks, config = read_checks(session.store.folder("base", made.key)), session.config
    if checks:
        limit = None if gpu is None else limit_gib(gpu, config.hardware.vram_gib)
        found += notes(checks, config, gpu, limit_gib=limit)
    return found


def _hardware(gpu: Gpu, config: Config) -> list[str]:
    if gpu.too_old:
        return [f"hardware: {gpu.too_old}."]
    dtype = config.train.dtype
    if dtype == "float16" or (dtype == "auto" and gpu.uses_float16):
        why = f", because {gpu.name} has no bfloat16" if gpu.uses_float16 else ""
        return [
            f"train: float16 with loss scaling{why}; it ends in its first steps if activations of "
            "the base exceed 65,504."
        ]
    if dtype == "bfloat16" and gpu.uses_float16:
        return [f"train: fails, because {gpu.name} has no bfloat16. Set train.dtype to auto."]
    return []


def read_checks(base: Path) -> dict[str, Any]:
    """The report of the stage `base` in its artifact; {} if it wrote none."""
    file = base / CHECKS_FILE
    checks: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
    return checks


def notes(
    checks: Mapping[str, Any],
    config: Config,
    gpu: Gpu | None = None,
    *,
    limit_gib: float | None = None,
) -> list[str]:
    """The lines.

    Args:
        checks: Content of checks.json.
        config: What is planned.
        gpu: That it runs on; None: the CPU.
        limit_gib: GPU memory that it may use; None: unknown.
    """
    lines = [f"train: {_path(checks, config, gpu)}."]
    if checks["isolation"] == "rows":
        lines.append(
            "base: rows run one by one in training and evaluation, because packed rows would see "
            f"each other (hidden states differ by {float(checks['leak']):.1g})."
        )
    if checks["isolation"] == "rows" or not checks["generation_cache"]:
        has_cache = checks["generation_cache"]
        how = "with the model's cache" if has_cache else "without the model's cache, which is wrong"
        lines.append(f"evaluate: texts are generated one by one, {how}.")
    lines += _expert_notes(checks, config) if checks["experts"] else []
    if limit_gib is not None and not config.hardware.shard_base:
        lines += _size_notes(checks, config, limit_gib)
    total = checks["linear_parameters"] + checks["experts"].get("parameters", 0)
    other = checks["other_parameters"]
    if other > NOT_TRAINED_SHARE * (total + other):
        lines.append(
            f"base: {other / 1e6:,.0f} M of {(total + other) / 1e6:,.0f} M parameters stay in 16 "
            f"bit ({2 * other / 2**30:.1f} GiB) and are not trained: they are in no linear layer "
            "or fused expert that LoRA reaches."
        )
    if gpu is None and checks["odd_features"] and config.train.quantization == "nf4":
        shown = ", ".join(f"{name} {size}" for name, size in checks["odd_features"].items())
        lines.append(
            f"train: fails, because a CPU runs 4-bit layers only if their features are multiples "
            f"of 64, and these are not: {shown}. Set train.quantization to none."
        )
    if checks["unreached"]:
        lines.append(
            f"base: LoRA does not reach {', '.join(checks['unreached'])}: "
            f"{checks['unreached_parameters'] / 1e6:,.0f} M parameters are not trained."
        )
    return lines


def _size_notes(checks: Mapping[str, Any], config: Config, limit_gib: float) -> list[str]:
    """Weights that do not fit into the GPU."""
    from tasks.core.models.experts.gpu_memory import weight_gib  # imported here: only GPUs need it

    weights = weight_gib(checks, config.train)
    if weights <= limit_gib:
        return []
    return [
        f"train: fails, because the weights of the base take {weights:.1f} GiB of GPU memory "
        f"and {limit_gib:.1f} GiB may be used. Choose a smaller base."
    ]


def _expert_notes(checks: Mapping[str, Any], config: Config) -> list[str]:
    """What a mixture of experts takes, and what of it is trained."""
    experts, train = checks["experts"], config.train
    count, wide = experts["parameters"], 4 if train.dtype == "float32" else 2
    size = count * (NF4_BYTES if train.quantization == "nf4" else wide) / 2**30
    bits = 4 if train.quantization == "nf4" else 8 * wide
    lines = [
        f"base: {experts['each']} experts in each of {experts['layers']} layers, "
        f"{experts['active']} of them active per token, have {count / 1e6:,.0f} of "
        f"{checks['parameters'] / 1e6:,.0f} M parameters: {size:.1f} GiB in {bits} bit."
    ]
    rank = expert_rank(train, experts["active"])
    if not rank:
        why = "train.use_dora is on" if train.use_dora else "train.target_modules is set"
        if train.expert_rank == 0:
            why = "train.expert_rank is 0"
        lines.append(f"train: the experts are not trained, because {why}.")
        return lines
    trained = rank * experts["lora_per_rank"] / 1e6
    dropout = "; train.lora_dropout does not apply to it" if train.lora_dropout else ""
    lines.append(
        f"train: LoRA of rank {rank} on the experts adds {trained:,.1f} M trained parameters "
        f"(train.expert_rank){dropout}."
    )
    return lines


def _path(checks: Mapping[str, Any], config: Config, gpu: Gpu | None) -> str:
    """Which training step runs, and why it is not the fast one."""
    reason = ""
    if config.train.fast_path == "off":
        reason = "train.fast_path is off"
    elif checks["plain_reason"]:
        reason = checks["plain_reason"]
    elif checks["isolation"] == "rows":
        reason = "packed rows of this model are not isolated by attention alone"
    elif checks["trusted_code"]:
        reason = "the model comes with its own code"
    elif config.train.use_dora or config.train.extra_modules:
        reason = "it has no DoRA and no extra modules"
    else:
        reason = (gpu or Gpu("", "", 0.0)).no_kernels(config.train.dtype)
    if not reason:
        return "uses the fast path"
    return f"uses the plain path, several times slower than the fast path: {reason}"
