"""Which way a step is run, and how much of it is kept in memory.

The fast path is taken where it knows the model; otherwise transformers and peft run the step, and
the watcher is told why, once. On a GPU the sizes follow from a probe of the longest window.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.core.models import memory_probes
from tasks.core.models.device import free_gpu, peak_vram_gib, reset_peak
from tasks.core.models.packed_dataset import Window
from tasks.core.progress import say
from tasks.core.settings.train import TrainSettings
from tasks.training.fast.model import Unsupported
from tasks.training.fast.step import FastStepper
from tasks.training.steppers import memory_probe
from tasks.training.steppers.autograd_stepper import PlainStepper
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.stepper import Stepper


def choose_stepper(
    model: Any,
    flat: FlatParameters,
    *,
    fast_path: str,
    kept_layers: int | None,
    max_tokens: int,
    offload: bool = False,
    lockstep: bool = False,
) -> Stepper:
    """The stepper for a model on its device.

    Args:
        model: A PEFT model.
        flat: Its trained parameters.
        fast_path: auto or off.
        kept_layers: Layers that keep activations; None: on a CPU all, on a GPU none as yet.
        max_tokens: Tokens of the longest window.
        offload: Activations wait in the CPU's memory.
        lockstep: The base is split over processes, which the fast path does not know.
    """
    if kept_layers is None:
        kept_layers = 2**31 if flat.values.device.type == "cpu" else 0
    if fast_path != "off" and not lockstep:
        try:
            return FastStepper(
                model, flat, max_tokens=max_tokens, kept_layers=kept_layers, offload=offload
            )
        except (Unsupported, ImportError) as reason:
            say(f"train: steps go by transformers and peft, not the fast path: {reason}")
    return PlainStepper(model, kept_layers, max_tokens, offload, lockstep)


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
    """Set the stepper to what the GPU has free now, by a probe of this run or an earlier one.

    Args:
        stepper: As chosen.
        flat: The trained parameters.
        make_optimizer: An optimizer over them.
        longest: Reads the window with the most tokens.
        weights: Folder of the base model, whose configuration tells its shape.
        settings: Of the stage.
        vram_gib: Cap of the GPU's memory; None: what is free.
        sharded: The need depends on the other GPUs, so the probe is of this run alone.

    Raises:
        PipelineError: It does not fit.
    """
    limit_gib, gpu = memory_probe.memory_limit_gib(vram_gib), memory_probes.find_gpu()
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
        if about and found.window_tokens == tokens:  # one that had to be cut is of this hour only
            memory_probes.write(about, tokens, found)
    expected_gib = memory_probe.fit(stepper, found, limit_gib, settings.kept_layers)
    memory_probe.check(expected_gib, limit_gib, tokens)
    free_gpu()
    reset_peak()
    return found
