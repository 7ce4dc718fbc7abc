"""LoRA's reach: the linear layers and fused experts of a model whose LoRA gets a gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from tasks.core.models.experts.forward import use_own_forward
from tasks.core.models.experts.fused import fused_weights
from tasks.core.models.experts.quantization import quantized
from tasks.core.models.loading import linear_names
from tasks.core.models.packed_forward import decoder_of

TOLERANCE = 1e-4  # relative difference of hidden states; rounding in 32 bit makes 1e-6


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

    In some mixtures of experts it targets the experts' fused parameters instead, by the names that
    the experts' layers had once: a shared expert's layers of the same names then get none.
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


def experts_work(model: Any, ids: Tensor, hidden: Tensor) -> bool:
    """Whether fused experts can be computed by our own forward pass, with LoRA and in 4 bit.

    Changes the model.

    Args:
        model: A reduced model.
        ids: int64[1, n].
        hidden: [n, features], what transformers' forward pass makes of them.
    """
    weights = list(fused_weights(model))
    if not weights:
        return False
    decoder = decoder_of(model)
    try:
        use_own_forward(model)
        with torch.no_grad():
            own = decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
        if float((own - hidden).abs().max()) > TOLERANCE * float(hidden.abs().max()):
            return False
        for weight in weights:
            path, _, name = weight.name.rpartition(".")
            module = model.get_submodule(path)
            setattr(module, name, quantized(getattr(module, name).data))
        tuned = get_peft_model(
            model, LoraConfig(r=2, target_modules=[], target_parameters=[w.name for w in weights])
        )
        use_own_forward(tuned)
        with torch.enable_grad():
            decoder(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()
    except (ValueError, RuntimeError, AttributeError, TypeError):
        return False  # experts with another interface: they stay as they are
    trained = [p for name, p in tuned.named_parameters() if "lora_B" in name]
    return len(trained) == len(weights) and all(
        p.grad is not None and bool(p.grad.any()) for p in trained
    )
