"""Notes about the base model in a plan, from the report that the stage `base` wrote."""

import json
from collections.abc import Mapping
from typing import Any

from flows.session import Session
from tasks.core.cache.decision import HIT
from tasks.core.settings.config import Config

CHECKS_FILE = "checks.json"
NOT_TRAINED_SHARE = 0.05  # of the parameters outside of the embedding; less is norms and biases


def model_notes(session: Session) -> list[str]:
    """One line for each thing that is unusual about the base; none if it does not exist yet."""
    plan = next((plan for plan in session.plans if plan.stage.name == "base"), None)
    made = session.planner.artifacts.get("base") or (plan.manifest if plan else None)
    if made is None or (plan is not None and plan.decision != HIT):
        return []
    file = session.store.folder("base", made.key) / CHECKS_FILE
    return notes(json.loads(file.read_bytes()), session.config) if file.is_file() else []


def notes(checks: Mapping[str, Any], config: Config) -> list[str]:
    """The lines.

    Args:
        checks: Content of checks.json.
        config: What is planned.
    """
    lines = [f"train: {_path(checks, config)}."]
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
    if checks["unreached"]:
        lines.append(f"base: LoRA does not reach {', '.join(checks['unreached'])}.")
    return lines


def _longest_row(config: Config) -> int:
    return config.tokenize.max_tokens or config.tokenize.window_tokens


def _path(checks: Mapping[str, Any], config: Config) -> str:
    """Which training step runs, and why it is not the fast one."""
    reason = ""
    if config.train.fast_path == "off":
        reason = "train.fast_path is off"
    elif checks["plain_reason"]:
        reason = checks["plain_reason"]
    elif 0 < checks["window"] < (longest := _longest_row(config)):
        reason = (
            f"rows of up to {longest} tokens are longer than the sliding window of "
            f"{checks['window']} (tokenize.max_tokens)"
        )
    elif checks["isolation"] != "varlen":
        reason = "packed rows of this model are not isolated by attention alone"
    elif checks["trusted_code"]:
        reason = "the model comes with its own code"
    elif config.train.use_dora or config.train.extra_modules:
        reason = "it has no DoRA and no extra modules"
    if not reason:
        return "uses the fast path"
    return f"uses the plain path, several times slower than the fast path: {reason}"
