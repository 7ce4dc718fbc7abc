"""The memory probe: measures what the longest window needs on this GPU, before training starts.

In: an untrained stepper. Out: a `Probe`, and the stepper set to the size that fits. The probe runs
forward, backward, optimizer, validation and the copy for a checkpoint on the real longest window;
parameters are unchanged afterwards. The size of a kept layer is known to the byte, so one
measurement with no layer kept predicts the need with any number of them. Formulas alone do not
know the workspaces that libraries allocate.
"""

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tasks.core.errors import PipelineError
from tasks.core.models.device import GIB, free_gpu, peak_vram_gib, reset_peak
from tasks.core.models.memory_probes import Probe
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import window_tensors
from tasks.core.progress import say
from tasks.training.batches import split_window
from tasks.training.checkpoints import on_cpu
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.stepper import Stepper, shrink

TIMED_STEPS = 3


def fit(stepper: Stepper, probe: Probe, limit_gib: float, kept_layers: int | None) -> float:
    """Set the stepper to the size that fits; returns the expected memory, in GiB.

    Args:
        stepper: As probed.
        probe: The measurement.
        limit_gib: Memory limit.
        kept_layers: The user's setting; None: as many as fit.
    """
    kept = probe.kept_within(limit_gib) if kept_layers is None else kept_layers
    stepper.resize(kept, min(stepper.window_tokens, probe.window_tokens))
    return probe.reserved_gib(stepper.kept_layers)


def measure(
    stepper: Stepper,
    flat: FlatParameters,
    make_optimizer: Callable[[], Any],
    longest: Window,
    *,
    load_gib: float,
    limit_gib: float,
    kept_layers: int | None,
) -> Probe:
    """Run the longest window with no layer kept; shrink the window while it does not fit.

    Args:
        stepper: To probe; resized.
        flat: The trained parameters; unchanged afterwards.
        make_optimizer: Creates a temporary optimizer over them.
        longest: The window with the most tokens.
        load_gib: Peak memory of loading the base.
        limit_gib: Memory limit.
        kept_layers: The user's setting for the timed steps; None: as many as fit.

    Raises:
        torch.OutOfMemoryError: The shortest windows do not fit.
    """
    before = flat.values.detach().clone()
    stepper.resize(0, stepper.window_tokens)
    while True:
        free_gpu()
        reset_peak()
        try:
            _cycle(stepper, flat, make_optimizer(), longest)
            break
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            if not shrink(stepper):
                raise
    base_gib, window_tokens = peak_vram_gib(), stepper.window_tokens
    layer_gib = _layer_bytes(stepper) / GIB
    untimed = Probe(
        window_tokens, stepper.name, stepper.layers, load_gib, base_gib, layer_gib, 0, 0.0
    )
    fit(stepper, untimed, limit_gib, kept_layers)
    tokens_per_s = _speed(stepper, flat, longest)
    with torch.no_grad():
        flat.values.copy_(before)
    flat.clear()
    return replace(untimed, kept_layers=stepper.kept_layers, tokens_per_s=tokens_per_s)


def _cycle(stepper: Stepper, flat: FlatParameters, optimizer: Any, window: Window) -> None:
    """Everything that training does with a window.

    With a learning rate of 0, the update allocates the optimizer's states and changes no parameter.
    Reading the results waits until the kernels have run.
    """
    _step(stepper, flat, window)
    float(flat.clip(1.0))
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    for part in split_window(window, stepper.window_tokens):
        losses, hits = stepper.measure(window_tensors(part, flat.values.device))
        float(losses.double().sum()), int(hits.sum())
    on_cpu(optimizer.state_dict())
    flat.values.detach().cpu()


def _step(stepper: Stepper, flat: FlatParameters, window: Window) -> None:
    flat.clear()
    parts = split_window(window, stepper.window_tokens)
    tensors = [window_tensors(part, flat.values.device) for part in parts]
    stepper.run(tensors, max(1, sum(t.trained_tokens for t in tensors)), 1)


def _speed(stepper: Stepper, flat: FlatParameters, window: Window) -> float:
    """Tokens per second of steps on the window, after one warm-up step."""
    _step(stepper, flat, window)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(TIMED_STEPS):
        _step(stepper, flat, window)
    torch.cuda.synchronize()
    return TIMED_STEPS * len(window.input_ids) / (time.perf_counter() - began)


def _layer_bytes(stepper: Stepper) -> int:
    """Bytes of one kept layer; 0 for a stepper that cannot tell."""
    known = getattr(stepper, "layer_bytes", None)
    return int(known()) if known else 0


def check(expected_gib: float, limit_gib: float, window_tokens: int) -> None:
    """Log the expected memory; raise if it exceeds the limit.

    Raises:
        PipelineError: With both numbers.
    """
    if expected_gib > limit_gib:
        raise PipelineError(
            f"training needs {expected_gib:.2f} GiB of GPU memory and {limit_gib:.2f} GiB are free",
            "Close other programs that use the GPU, raise hardware.vram_gib, set train.kept_layers "
            f"to null, or lower tokenize.window_tokens below {window_tokens:,}.",
        )
    say(f"train: {expected_gib:.2f} of {limit_gib:.2f} GiB of GPU memory expected")
