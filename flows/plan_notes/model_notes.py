"""Notes about the base model in a plan, from the report that the stage `base` wrote."""

import json
from collections.abc import Mapping
from typing import Any

from flows.session import Session
from tasks.core.cache.decision import HIT
from tasks.core.models.memory_probes import Gpu, find_gpu
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
    file = session.store.folder("base", made.key) / CHECKS_FILE
    if file.is_file():
        found += notes(json.loads(file.read_bytes()), session.config, gpu)
    return found


def _hardware(gpu: Gpu, config: Config) -> list[str]:
    if gpu.too_old:
        return [f"hardware: {gpu.too_old}."]
    dtype = config.train.dtype
    if dtype == "float16" or (dtype == "auto" and gpu.uses_float16):
        why = f", as this {gpu.name} has no bfloat16" if gpu.uses_float16 else ""
        return [
            f"train: float16 with loss scaling{why}; it ends in its first steps if activations of "
            "the base exceed 65,504."
        ]
    if dtype == "bfloat16" and gpu.uses_float16:
        return [f"train: stops, as this {gpu.name} has no bfloat16; set train.dtype to auto."]
    return []


def notes(checks: Mapping[str, Any], config: Config, gpu: Gpu | None) -> list[str]:
    """The lines.

    Args:
        checks: Content of checks.json.
        config: What is planned.
        gpu: That it runs on; None: the CPU.
    """
    lines = [f"train: {_path(checks, config, gpu)}."]
    if checks["isolation"] == "rows":
        lines.append(
            "base: rows run one by one in training and evaluation, because packed rows would see "
            f"each other (hidden states differ by {float(checks['leak']):.1g})."
        )
    if checks["isolation"] == "rows" or not checks["generation_cache"]:
        cache = "its own cache" if checks["generation_cache"] else "no cache, as its own is wrong"
        lines.append(f"evaluate: texts are generated one by one, with {cache}.")
    total, other = checks["linear_parameters"], checks["other_parameters"]
    if other > NOT_TRAINED_SHARE * (total + other):
        lines.append(
            f"base: {other / 1e6:,.0f} M of {(total + other) / 1e6:,.0f} M parameters stay in 16 "
            f"bit ({2 * other / 2**30:.1f} GiB) and are not trained: they are in no linear layer "
            "that LoRA reaches."
        )
    if gpu is None and checks["odd_features"] and config.train.quantization == "nf4":
        shown = ", ".join(f"{name} {size}" for name, size in checks["odd_features"].items())
        lines.append(
            f"train: stops, as features of linear layers ({shown}) are not multiples of 64, which "
            "a CPU can't run in 4 bit; set train.quantization to none."
        )
    if checks["unreached"]:
        lines.append(f"base: LoRA does not reach {', '.join(checks['unreached'])}.")
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
