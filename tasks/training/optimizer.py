"""AdamW in 32 or 8 bit, and the learning-rate schedule as a pure function of the step."""

import math
from typing import Any, Literal

import torch
from torch import nn

from tasks.core.errors import PipelineError

# the defaults of PyTorch's AdamW and of transformers' Trainer
BETAS = (0.9, 0.999)
EPSILON = 1e-8
Schedule = Literal["linear", "cosine", "constant"]


def pick_optimizer(setting: str, device: torch.device) -> str:
    """The optimizer of a `train.optimizer` setting on a device.

    Raises:
        PipelineError: An 8-bit optimizer without a GPU.
    """
    if setting == "auto":
        return "paged_adamw_8bit" if device.type == "cuda" else "adamw"
    if setting != "adamw" and device.type != "cuda":
        raise PipelineError(
            f"train.optimizer is {setting} and the model is on the {device.type}",
            "Set train.optimizer to auto or adamw; 8-bit states pay only on a GPU.",
        )
    return setting


def make_optimizer(name: str, values: nn.Parameter, weight_decay: float) -> Any:
    """An optimizer over the flat parameter; the loop sets its learning rate before every step."""
    arguments: dict[str, Any] = {"lr": 0.0, "betas": BETAS, "eps": EPSILON}
    if name == "adamw":
        fused = values.device.type == "cuda"
        return torch.optim.AdamW([values], weight_decay=weight_decay, fused=fused, **arguments)
    import bitsandbytes as bnb

    kind = bnb.optim.PagedAdamW8bit if name == "paged_adamw_8bit" else bnb.optim.AdamW8bit
    return kind([values], weight_decay=weight_decay, **arguments)


def learning_rate(
    step: int, *, peak: float, warmup_steps: int, total_steps: int, schedule: Schedule
) -> float:
    """Learning rate of a step (from 0); equal to transformers' schedules of the same name."""
    if step < warmup_steps:
        return peak * step / max(1, warmup_steps)
    if schedule == "constant":
        return peak
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if schedule == "cosine":
        return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))
    return peak * max(0.0, 1.0 - done)
