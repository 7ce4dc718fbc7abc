"""Rank of the LoRA on fused experts; without PyTorch, as `finetune plan` states it."""

from tasks.core.settings.train import TrainSettings


def expert_rank(settings: TrainSettings, active: int) -> int:
    """The rank; 0: experts are not trained.

    Args:
        settings: Of the training.
        active: Experts that a token passes.
    """
    if settings.use_dora:  # PEFT has none for fused parameters
        return 0
    if settings.expert_rank is not None:
        return settings.expert_rank
    if settings.target_modules:  # the user's choice of layers names no experts
        return 0
    return max(1, settings.lora_rank // active)
