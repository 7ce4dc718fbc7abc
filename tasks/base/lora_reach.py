"""LoRA's reach: the linear layers of a model whose LoRA gets a gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from tasks.core.models.loading import linear_names
from tasks.core.models.packed_forward import decoder_of


def lora_reach(model: Any, ids: Tensor) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of linear layers whose LoRA gets a gradient, and of the others. Changes the model."""
    names = linear_names(model)
    accepted = names if _accepts(model, names) else [n for n in names if _accepts(model, [n])]
    reached: set[str] = set()
    if accepted:
        tuned = get_peft_model(model, _lora(accepted))
        with torch.enable_grad():
            decoder_of(tuned)(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name and parameter.grad is not None and bool(parameter.grad.any()):
                reached.add(name.split(".lora_B")[0].rpartition(".")[2])
    return tuple(sorted(reached)), tuple(sorted(set(names) - reached))


def _accepts(model: Any, names: Sequence[str]) -> bool:
    """Whether PEFT puts LoRA on the layers of these names, and on nothing else.

    In some mixtures of experts it targets the experts' fused parameters instead, which can't be
    merged tensor by tensor.
    """
    try:
        tuned = get_peft_model(model, _lora(names))
    except ValueError:
        return False
    fused = bool(tuned.peft_config["default"].target_parameters)
    tuned.unload()
    return not fused


def _lora(names: Sequence[str]) -> LoraConfig:
    return LoraConfig(r=2, target_modules=list(names), task_type="CAUSAL_LM")
