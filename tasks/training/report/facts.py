"""Facts about a training for training.json: the model, the machine, and how the steps ran."""

from typing import Any

import torch

from tasks.core.models.device import ComputeType, peak_vram_gib
from tasks.core.settings.train import TrainSettings
from tasks.training.loop import Loop
from tasks.training.lora import parameter_counts
from tasks.training.optimizer import pick_optimizer


def facts_of_the_model(settings: TrainSettings, model: Any, device: torch.device) -> dict[str, Any]:
    """Facts that are known once the model is loaded, before the first step."""
    trained, total = parameter_counts(model)
    return {
        "trainable_parameters": trained,
        "all_parameters": total,
        "trainable_share": trained / total,
        "optimizer": pick_optimizer(settings.optimizer, device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "rows_a_step": settings.batch_rows if settings.batch_tokens is None else None,
        "batch_tokens": settings.batch_tokens,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_steps,
        "load_vram_gib": peak_vram_gib(),
    }


def facts_of_the_run(loop: Loop, dtype: ComputeType, load_vram_gib: float) -> dict[str, Any]:
    """How the steps ran, after the last one."""
    stepper = loop.stepper
    return {
        "dtype": dtype,
        "step_path": stepper.name,
        "attention": stepper.attention,
        "kept_layers": stepper.kept_layers,
        "window_tokens": stepper.window_tokens,
        "processes": loop.parallel.size,
        "resumed_from": loop.resumed_from,
        "total_steps": loop.total_steps,
        "peak_vram_gib": max(load_vram_gib, peak_vram_gib()),
    }
