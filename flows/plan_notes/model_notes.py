"""Notes about the base model in a plan, from the report that the stage `base` wrote."""

import json
from collections.abc import Mapping
from typing import Any

from flows.session import Session
from tasks.core.cache.decision import HIT
from tasks.core.models.memory_probes import find_gpu
from tasks.core.settings.config import Config

CHECKS_FILE = "checks.json"
NOT_TRAINED_SHARE = 0.05  # of the parameters outside of the embedding; less is norms and biases


def model_notes(session: Session) -> list[str]:
    """One line for each thing that is unusual about the GPU or the base, if that exists yet."""
    gpu = None if session.config.hardware.device == "cpu" else find_gpu()
    found = [f"hardware: {gpu.too_old}."] if gpu and gpu.too_old else []
    plan = next((plan for plan in session.plans if plan.stage.name == "base"), None)
    made = session.planner.artifacts.get("base") or (plan.manifest if plan else None)
    if made is None or (plan is not None and plan.decision != HIT):
        return found
    file = session.store.folder("base", made.key) / CHECKS_FILE
    if file.is_file():
        found += notes(json.loads(file.read_bytes()), session.config, on_cpu=gpu is None)
    return found


def notes(checks: Mapping[str, Any], config: Config, *, on_cpu: bool = False) -> list[str]:
    """The lines.

    Args:
        checks: Content of checks.json.
        config: What is planned.
        on_cpu: It runs without a GPU.
    """
    lines = [f"train: {_path(checks, config)}."]
    if checks["isolation"] == "rows":
        lines.append(
            "base: rows run one by one in training and evaluation, because packed rows would see "
            f"each other (hidden states differ by {float(checks['leak']):.1g})."
        )
    if checks["isolation"] == "rows" or not checks["generation_cache"]:
        has_cache = checks["generation_cache"]
        how = "with the model's cache" if has_cache else "without the model's cache, which is wrong"
        lines.append(f"evaluate: texts are generated one by one, {how}.")
    total, other = checks["linear_parameters"], checks["other_parameters"]
    if other > NOT_TRAINED_SHARE * (total + other):
        lines.append(
            f"base: {other / 1e6:,.0f} M of {(total + other) / 1e6:,.0f} M parameters stay in 16 "
            f"bit ({2 * other / 2**30:.1f} GiB) and are not trained: they are in no linear layer "
            "that LoRA reaches."
        )
    if on_cpu and checks["odd_features"] and config.train.quantization == "nf4":
        shown = ", ".join(f"{name} {size}" for name, size in checks["odd_features"].items())
        lines.append(
            f"train: fails, because a CPU runs 4-bit layers only if their features are multiples "
            f"of 64, and these are not: {shown}. Set train.quantization to none."
        )
    if checks["unreached"]:
        lines.append(f"base: LoRA does not reach {', '.join(checks['unreached'])}.")
    return lines


def _path(checks: Mapping[str, Any], config: Config) -> str:
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
    if not reason:
        return "uses the fast path"
    return f"uses the plain path, several times slower than the fast path: {reason}"
