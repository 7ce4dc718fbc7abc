"""The model that is trained: the quantized base with LoRA layers."""

from pathlib import Path
from typing import Any

import torch

from tasks.core.errors import PipelineError
from tasks.core.models.device import ComputeType, limit_memory
from tasks.core.models.experts.fused import active_experts
from tasks.core.models.experts.rank import expert_rank
from tasks.core.models.loading import load_model
from tasks.core.models.trusted_code import is_trusted
from tasks.core.progress import say
from tasks.core.settings.hardware import HardwareSettings
from tasks.core.settings.train import TrainSettings
from tasks.training.lora import add_lora, load_start, parameter_counts


def load_with_lora(
    settings: TrainSettings,
    hardware: HardwareSettings,
    weights: Path,
    *,
    device: torch.device,
    dtype: ComputeType,
    adapter: Path | None = None,
) -> Any:
    """The base model with LoRA in it, as PEFT wraps it.

    Args:
        settings: Of the training.
        hardware: Limits of the memory.
        weights: Folder of the base model.
        device: Where the training runs.
        dtype: Type of what is not quantized.
        adapter: Adapter to start from; None: a fresh one.

    Raises:
        PipelineError: `train.expert_rank` is set, and the base has no experts for LoRA.
    """
    limit_memory(device, hardware.vram_gib, hardware.expandable_segments)
    base = load_model(
        weights,
        quantization=settings.quantization,
        # FSDP moves the layers to the GPU one by one; a whole base would not fit there
        device="cuda" if device.type == "cuda" and not hardware.shard_base else "cpu",
        dtype=dtype,
        vram_gib=hardware.vram_gib,
        expandable_segments=hardware.expandable_segments,
        trainable=True,
        shardable=hardware.shard_base,
        trust_remote_code=is_trusted(weights),
    )
    if settings.expert_rank and not base.lora_on_experts:
        raise PipelineError(
            f"train.expert_rank is {settings.expert_rank}, and the base has 0 experts for LoRA",
            "Set train.expert_rank to null.",
        )
    model = add_lora(
        base,
        rank=settings.lora_rank,
        expert_rank=expert_rank(settings, active_experts(base.config)),
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        targets=settings.target_modules,
        last_layers=settings.last_layers,
        extra_modules=settings.extra_modules,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        seed=settings.seed,
    )
    if adapter is not None:
        load_start(model, adapter)
    trained, total = parameter_counts(model)
    say(f"train: {trained:,} of {total:,} parameters are trained ({100 * trained / total:.3f} %)")
    return model
