"""One training process: load the base, pick a stepper and its size, run the loop, write results.

In: a `TrainingJob`, the same in every process of a data-parallel run. Out: the adapter, metrics and
training.json in `job.out`, written by the main process; and the stage's summary.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from tasks.core.errors import TrainingError
from tasks.core.models.device import (
    free_gpu,
    pick_device,
    pick_dtype,
    reset_peak,
)
from tasks.core.models.packed_dataset import Window, Windows
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.core.progress import say
from tasks.core.settings.hardware import HardwareSettings
from tasks.core.settings.train import TrainSettings
from tasks.core.stage import Summary
from tasks.training.batches import Batches
from tasks.training.distributed.data_parallel import SINGLE_PROCESS, DataParallel
from tasks.training.distributed.fsdp import shard, unwrap
from tasks.training.fast.model.groups import parameter_order
from tasks.training.load_with_lora import load_with_lora
from tasks.training.loop import Loop
from tasks.training.lora import save_adapter
from tasks.training.optimizer import make_optimizer, pick_optimizer
from tasks.training.report.facts import facts_of_the_model, facts_of_the_run
from tasks.training.report.metrics_log import Counters
from tasks.training.report.results import finish
from tasks.training.signals import stop_on_signals
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.loss_scale import LossScale
from tasks.training.steppers.pick_stepper import fit_to_gpu, pick_stepper
from tasks.training.steppers.stepper import Stepper
from tasks.training.validation import Validation, validate


class TrainingJob(BaseModel):
    """Everything that a training needs; JSON-serializable for processes on other GPUs.

    Attributes:
        data: Tokenized rows to train on.
        validation: Tokenized rows for validation.
        weights: The base model.
        adapter: Adapter to start from; None: a fresh one.
        start: Facts about the start, for training.json.
        out: Folder for the adapter and the reports beside it.
        scratch: Folder that survives a killed process.
    """

    model_config = ConfigDict(frozen=True)

    train: TrainSettings
    hardware: HardwareSettings
    data: Path
    validation: Path
    weights: Path
    adapter: Path | None
    start: dict[str, Any]
    out: Path
    scratch: Path


def train(job: TrainingJob, parallel: DataParallel = SINGLE_PROCESS) -> Summary:
    """Train an adapter in this process; the GPU is free afterwards.

    Raises:
        PipelineError: As `tasks.training.run.run`.
    """
    settings = job.train
    batches = Batches(
        Windows.open(job.data),
        batch_rows=settings.batch_rows,
        batch_tokens=settings.batch_tokens,
        joined_tokens=settings.joined_tokens,
        seed=settings.seed,
    )
    validation = Windows.open(job.validation)
    device = pick_device(job.hardware.device)
    free_gpu()  # memory that an earlier stage left in the allocator would count for this one
    reset_peak()
    try:
        return _train(job, parallel, batches, validation, device)
    except Exception as error:
        # frames of the traceback hold references to the model, which `free_gpu` could not free
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, torch.OutOfMemoryError):
            raise _out_of_memory(job.hardware.vram_gib) from error
        raise
    finally:
        free_gpu()


def _train(
    job: TrainingJob,
    parallel: DataParallel,
    batches: Batches,
    validation: Windows,
    device: torch.device,
) -> Summary:
    settings = job.train
    dtype = pick_dtype(settings.dtype, device, settings.quantization)
    model = load_with_lora(
        settings, job.hardware, job.weights, device=device, dtype=dtype, adapter=job.adapter
    )
    if parallel.lockstep:
        shard(model, device)
    flat = FlatParameters(model, parameter_order)
    stepper = pick_stepper(
        model,
        flat,
        fast_path=settings.fast_path,
        backward=settings.backward,
        kept_layers=settings.kept_layers,
        max_tokens=max(batches.max_tokens, int(validation.tokens.max(initial=1))),
        offload=settings.offload_activations,
        lockstep=parallel.lockstep,
    )
    facts = job.start | facts_of_the_model(settings, model, device)
    facts |= _fit(job, stepper, flat, batches, validation, device)
    optimizer = make_optimizer(facts["optimizer"], flat.values, settings.weight_decay)
    with stop_on_signals(job.hardware.quiet_hours) as stop_requested:
        loop = Loop(
            stepper,
            flat,
            optimizer,
            batches,
            device=device,
            folder=job.scratch,
            settings=settings,
            total_steps=_total_steps(settings, batches),
            measure=_validator(settings, stepper, validation, device, parallel),
            stop_requested=stop_requested,
            parallel=parallel,
            loss_scale=LossScale() if dtype == "float16" else None,
        )
        done = _finished(loop)
    if parallel.lockstep:
        unwrap(model)
    if not parallel.is_main:
        return Summary("")
    save_adapter(model, job.out / "adapter", ModelTraits.read(job.weights).hub)
    facts |= facts_of_the_run(loop, dtype, facts["load_vram_gib"])
    return finish(job.scratch, job.out, facts, done, batches.windows.row_count)


def _total_steps(settings: TrainSettings, batches: Batches) -> int:
    # `run` has replaced auto by a number
    max_steps = settings.max_steps if isinstance(settings.max_steps, int) else None
    return batches.total_steps(max_steps, settings.epochs)


def _validator(
    settings: TrainSettings,
    stepper: Stepper,
    validation: Windows,
    device: torch.device,
    parallel: DataParallel,
) -> Callable[[], Validation | None]:
    """Measures the validation loss of the model as it is when called."""
    return lambda: validate(
        stepper.measure,
        validation,
        device,
        settings.validation_tokens,
        window_tokens=stepper.window_tokens,
        # in lockstep every process has to run every window, so nothing is divided
        parallel=SINGLE_PROCESS if parallel.lockstep else parallel,
    )


def _finished(loop: Loop) -> Counters:
    """The counters of a loop that ran to its end."""
    if loop.resumed_from is not None:
        say(f"train: resuming from step {loop.resumed_from} of {loop.total_steps}")
    try:
        return loop.run()
    finally:
        loop.close()


def _fit(
    job: TrainingJob,
    stepper: Stepper,
    flat: FlatParameters,
    batches: Batches,
    validation: Windows,
    device: torch.device,
) -> dict[str, Any]:
    """On a GPU: set the stepper to the size that fits; returns the expected memory and speed."""
    if device.type != "cuda":
        return {}
    # loading leaves holes between the blocks that stay: a step would not fill them but add to them
    free_gpu()
    settings = job.train

    def longest() -> Window:
        if int(validation.tokens.max(initial=0)) > batches.max_tokens:
            return validation.window(int(validation.tokens.argmax()))
        return batches.longest()

    name = pick_optimizer(settings.optimizer, device)
    expected = fit_to_gpu(
        stepper,
        flat,
        lambda: make_optimizer(name, flat.values, settings.weight_decay),
        longest,
        weights=job.weights,
        settings=settings,
        vram_gib=job.hardware.vram_gib,
        sharded=job.hardware.shard_base,
    )
    return {
        "expected_vram_gib": expected.reserved_gib(stepper.kept_layers),
        "expected_tokens_per_s": expected.tokens_per_s * job.hardware.gpus,
    }


def _out_of_memory(vram_gib: float | None) -> TrainingError:
    limit = "all of the GPU's memory" if vram_gib is None else f"{vram_gib:g} GiB"
    return TrainingError(
        f"training needs more than {limit}",
        "Lower tokenize.max_tokens, set train.offload_activations to true, or raise "
        "hardware.vram_gib; the next run resumes from the newest checkpoint.",
    )
