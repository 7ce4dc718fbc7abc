"""Expected duration of a training: the tokens of its remaining steps, by the speed of an earlier
training of the same base on the same device.

The duration of the last run says nothing about a training of another length.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import KEY_DIGITS, WORK, Store
from tasks.core.models import memory_probes
from tasks.core.settings.config import Config
from tasks.training.step_budget import AUTO, StepBudget

CHECKPOINT = "step-"  # as in tasks/training/checkpoints.py, which imports torch
CPU = "cpu"  # in training.json; of a GPU, its name


@dataclass(frozen=True)
class Pace:
    """Speed of an earlier training.

    Attributes:
        tokens_per_s: In its steps.
        other_s: Seconds outside of its steps: loading, validation.
        peak_gib: Memory of its process, if it ran on a CPU; else of the GPU.
    """

    tokens_per_s: float
    other_s: float
    peak_gib: float


def with_training_cost(
    config: Config, store: Store, plans: Sequence[StagePlan], tokenized: Manifest | None
) -> list[StagePlan]:
    """The plans; that of the training with its duration by tokens, where a speed is known.

    Args:
        config: All settings.
        store: Holds earlier trainings and checkpoints.
        plans: Of the selected stages.
        tokenized: The data of the training, or the last one.
    """
    train = next((plan for plan in plans if plan.stage.name == "train"), None)
    tokens = tokens_to_see(config, tokenized)
    known = pace(config, store, train) if train and train.decision != HIT else None
    if train is None or known is None or not tokens:
        return list(plans)
    left = tokens * (1 - done_share(config, store, train, tokenized))
    seconds = known.other_s + left / known.tokens_per_s
    return [replace(p, expected_seconds=seconds) if p is train else p for p in plans]


def pace(config: Config, store: Store, train: StagePlan) -> Pace | None:
    """Speed of the newest training of the same base on the same device; None without one."""
    now = train.parts.get("inputs", {}).get("base.weights")  # unknown while an input is
    for made in store.recent("train"):
        folder = store.folder("train", made.key)
        try:
            facts = json.loads((folder / "training.json").read_bytes())
            speed, tokens = float(facts["tokens_per_s"]), int(facts["tokens"])
        except (OSError, ValueError, KeyError):
            continue
        same_base = now in (None, made.parts.get("inputs", {}).get("base.weights"))
        if speed > 0 and same_base and facts.get("device") == device(config):
            gpu = facts.get("peak_vram_gib") or 0.0
            peak = made.made.get("peak_rss_gib", 0.0) if facts["device"] == CPU else gpu
            return Pace(speed, max(0.0, made.seconds - tokens / speed), float(peak))
    return None


def device(config: Config) -> str:
    """The device that a training would run on, as training.json names it: "cpu" or the GPU."""
    gpu = None if config.hardware.device == CPU else memory_probes.find_gpu()
    return gpu.name if gpu else CPU


def resume_step(store: Store, train: StagePlan) -> int | None:
    """Step of the newest checkpoint of an interrupted training; None: it starts from step 0."""
    if train.decision == HIT or train.key is None:
        return None
    scratch = store.root / WORK / f"train-{train.key[:KEY_DIGITS]}" / "scratch"
    return max(map(_step, scratch.glob(f"**/{CHECKPOINT}*")), default=None)


def _step(checkpoint: Path) -> int:
    digits = checkpoint.name.removeprefix(CHECKPOINT)
    return int(digits) if digits.isdecimal() else 0


def done_share(config: Config, store: Store, train: StagePlan, tokenized: Manifest | None) -> float:
    """Share of the steps that an interrupted training has finished."""
    step, steps = resume_step(store, train), total_steps(config, tokenized)
    return min(1.0, step / steps) if step and steps else 0.0


def budget(config: Config, tokenized: Manifest | None) -> StepBudget | None:
    """What `train.max_steps: auto` becomes; None without tokenized data."""
    metrics = tokenized.summary.get("metrics", {}) if tokenized else {}
    tokens, windows = metrics.get("train_tokens"), metrics.get("train_windows")
    return StepBudget.of(config.train, int(tokens), int(windows)) if tokens and windows else None


def total_steps(config: Config, tokenized: Manifest | None) -> int | None:
    """Optimizer steps of the training; None if they depend on data that does not exist yet."""
    train = config.train
    if train.max_steps == AUTO:
        found = budget(config, tokenized)
        return found.steps if found else None
    if train.epochs is None:
        return train.max_steps if isinstance(train.max_steps, int) else None
    tokens, step = tokens_to_see(config, tokenized), _step_tokens(config, tokenized)
    return max(1, math.ceil(tokens / step)) if tokens and step else None


def tokens_to_see(config: Config, tokenized: Manifest | None) -> int | None:
    """Tokens of all steps; None if they depend on data that does not exist yet."""
    train = config.train
    if train.max_steps == AUTO:
        found = budget(config, tokenized)
        return round(found.passes * found.tokens) if found else None
    there = tokenized.summary.get("metrics", {}).get("train_tokens") if tokenized else None
    a_step = _step_tokens(config, tokenized)
    limits: list[float] = []
    if isinstance(train.max_steps, int) and a_step:
        limits.append(train.max_steps * a_step)
    if train.epochs is not None and there:
        limits.append(train.epochs * there)
    return int(min(limits)) if limits else None


def _step_tokens(config: Config, tokenized: Manifest | None) -> float | None:
    """Tokens of an optimizer step."""
    if config.train.batch_tokens is not None:
        return config.train.batch_tokens
    rows = tokenized.summary.get("rows_out") if tokenized else None
    if tokenized is None or not rows:
        return None
    metrics = tokenized.summary.get("metrics", {})
    splits = ("train_tokens", "validation_tokens", "test_tokens")
    total: float = sum(metrics.get(name, 0) for name in splits)
    return config.train.batch_rows * total / int(rows)
