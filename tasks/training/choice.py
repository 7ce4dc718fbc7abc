"""Which way a step is run, and how much of it is kept in memory.

The fast path is taken where it knows the model; otherwise transformers and peft run the step, and
the watcher is told why, once. How many layers keep their activations follows from the memory
budget: the buffers of the fast path have known sizes, so nothing has to be tried.
"""

from typing import Any

import torch

from tasks.core.modeling import GIB
from tasks.core.progress import say
from tasks.training.fast import FastStepper
from tasks.training.fast_model import Unsupported
from tasks.training.flat import FlatParameters
from tasks.training.loop import Stepper
from tasks.training.plain import PlainStepper

BUDGET_SHARE = 0.72  # of the memory limit; the rest is for libraries, logits and other programs


def choose_stepper(
    model: Any,
    flat: FlatParameters,
    *,
    fast_path: str,
    kept_layers: int | None,
    max_tokens: int,
    vram_gib: float | None,
) -> Stepper:
    """The stepper for a model on its device.

    Args:
        model: A PEFT model.
        flat: Its trained parameters.
        fast_path: auto or off.
        kept_layers: Layers that keep activations; None: on a CPU all, on a GPU as many as fit.
        max_tokens: Tokens of the longest window.
        vram_gib: Memory limit of the GPU; None: what it has.
    """
    device = flat.values.device
    layers = int(model.config.num_hidden_layers)
    plain_layers = layers if device.type == "cpu" else 0
    if fast_path != "off":
        try:
            return FastStepper(
                model,
                flat,
                max_tokens=max_tokens,
                kept_layers=kept_layers,
                budget=free_budget(device, vram_gib),
            )
        except (Unsupported, ImportError) as reason:
            say(f"train: steps go by transformers and peft, not the fast path: {reason}")
    return PlainStepper(model, plain_layers if kept_layers is None else min(kept_layers, layers))


def free_budget(device: torch.device, vram_gib: float | None) -> int | None:
    """Bytes that buffers and kept activations may take; None on a CPU."""
    if device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(device).total_memory
    limit = total if vram_gib is None else min(total, vram_gib * GIB)
    return int(BUDGET_SHARE * limit) - torch.cuda.memory_allocated(device)
