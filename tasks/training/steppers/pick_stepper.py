"""Picks the stepper of a model, and its size on a GPU.

The fused stepper runs the models that it supports; for others the reason is logged once, and
transformers and PEFT run the step. On a GPU, sizes follow from a probe of the longest window.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tasks.core.models import memory_probes
from tasks.core.models.device import free_gpu, memory_limit_gib, peak_vram_gib, reset_peak
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import base_model
from tasks.core.progress import say
from tasks.core.settings.train import TrainSettings
from tasks.training.fast.model.weights import Unsupported
from tasks.training.fast.step import FastStepper
from tasks.training.steppers import memory_probe
from tasks.training.steppers.autograd_stepper import AutogradStepper
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.stepper import Stepper


def pick_stepper(
    model: Any,
    flat: FlatParameters,
    *,
    fast_path: str,
    backward: str = "bf16",
    kept_layers: int | None,
    max_tokens: int,
    offload: bool = False,
    lockstep: bool = False,
) -> Stepper:
    """The stepper of a model on its device.

    Args:
        model: A PEFT model.
        flat: Its trained parameters.
        fast_path: auto or off.
        backward: Of the fused stepper: bf16 or int8.
        kept_layers: Layers that keep activations; None: all on a CPU, none on a GPU before
            `fit_to_gpu`.
        max_tokens: Tokens of the longest window.
        offload: Activations wait in the CPU's memory.
        lockstep: The base is sharded over processes, which the fused stepper does not support.
    """
    if kept_layers is None:
        kept_layers = 2**31 if flat.values.device.type == "cpu" else 0
    if fast_path != "off" and not lockstep:
        try:
            if getattr(base_model(model), "isolation", "varlen") == "rows":
                raise Unsupported("packed rows of this model are not isolated by attention alone")
            if missing := _no_kernels(base_model(model).dtype, flat.values.device):
                raise Unsupported(missing)
            return FastStepper(
                model,
                flat,
                max_tokens=max_tokens,
                kept_layers=kept_layers,
                offload=offload,
                backward=backward,
            )
        except (Unsupported, ImportError) as reason:
            say(f"train: steps run by transformers and peft, not the fast path: {reason}")
    return AutogradStepper(model, kept_layers, max_tokens, offload, lockstep)


def fit_to_gpu(
    stepper: Stepper,
    flat: FlatParameters,
    make_optimizer: Callable[[], Any],
    longest: Callable[[], Window],
    *,
    weights: Path,
    settings: TrainSettings,
    vram_gib: float | None,
    sharded: bool = False,
) -> memory_probes.Probe:
    """Fit the stepper to the free memory by a probe of this run or a stored one.

    Args:
        stepper: To resize.
        flat: The trained parameters.
        make_optimizer: Creates an optimizer over them.
        longest: Reads the window with the most tokens.
        weights: Folder of the base model; its configuration is part of a stored probe's key.
        settings: Of the stage.
        vram_gib: Memory cap; None: all that is free.
        sharded: The base is sharded: the need depends on the other GPUs, so no probe is stored.

    Raises:
        PipelineError: It does not fit.
    """
    limit_gib, gpu = memory_limit_gib(vram_gib), memory_probes.find_gpu()
    tokens, load_gib = stepper.window_tokens, peak_vram_gib()
    about = memory_probes.facts(gpu, weights, settings) if gpu and not sharded else None
    found = memory_probes.read(about, tokens) if about else None
    if found is None or found.base_gib > limit_gib:
        found = memory_probe.measure(
            stepper,
            flat,
            make_optimizer,
            longest(),
            load_gib=load_gib,
            limit_gib=limit_gib,
            kept_layers=settings.kept_layers,
        )
        if about and found.window_tokens == tokens:  # a cut window: memory is short now
            memory_probes.write(about, tokens, found)
    expected_gib = memory_probe.fit(stepper, found, limit_gib, settings.kept_layers)
    memory_probe.check(expected_gib, limit_gib, tokens)
    free_gpu()
    reset_peak()
    return found


def _no_kernels(dtype: torch.dtype, device: torch.device) -> str:
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else ()
    gpu = memory_probes.Gpu("", "", 0.0, ".".join(map(str, capability)))
    return gpu.no_kernels(str(dtype).removeprefix("torch."))
