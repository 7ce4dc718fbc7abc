"""What one training process does: load, choose a way and its size, run the loop, leave results."""

import traceback
from typing import Any

import torch

from tasks.core.models.device import (
    free_gpu,
    limit_memory,
    peak_vram_gib,
    pick_device,
    pick_dtype,
    reset_peak,
)
from tasks.core.models.loading import load_model
from tasks.core.models.packed_dataset import Window, Windows
from tasks.core.models.trusted_code import is_trusted
from tasks.core.progress import say
from tasks.core.stage import Summary
from tasks.training.batches import Batches
from tasks.training.distributed.data_parallel import ALONE, Team
from tasks.training.distributed.fsdp import shard, unwrap
from tasks.training.fast.model import parameter_order
from tasks.training.job import Job
from tasks.training.loop import Loop, Plan
from tasks.training.lora import (
    add_lora,
    load_start,
    parameter_counts,
    save_adapter,
)
from tasks.training.optimizer import make_optimizer, pick_optimizer
from tasks.training.report.results import finish
from tasks.training.signals import stop_on_signals
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.pick_stepper import choose_stepper, fit_to_gpu
from tasks.training.steppers.stepper import Stepper
from tasks.training.training_errors import out_of_memory
from tasks.training.validation import validate


def train(job: Job, team: Team = ALONE) -> Summary:
    """Train an adapter as one of a team; the GPU is free afterwards.

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
    free_gpu()  # what an earlier stage left in the allocator would count as this one's
    reset_peak()
    try:
        return _train(job, team, batches, validation, device)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they would keep the model alive
        if isinstance(error, torch.OutOfMemoryError):
            raise out_of_memory(job.hardware.vram_gib) from error
        raise
    finally:
        free_gpu()


def _train(
    job: Job, team: Team, batches: Batches, validation: Windows, device: torch.device
) -> Summary:
    settings = job.train
    model = _model(job, device)
    if team.lockstep:
        shard(model, device)
    flat = FlatParameters(model, parameter_order)
    longest = max(batches.max_tokens, int(validation.tokens.max(initial=1)))
    stepper = choose_stepper(
        model,
        flat,
        fast_path=settings.fast_path,
        kept_layers=settings.kept_layers,
        max_tokens=longest,
        offload=settings.offload_activations,
        lockstep=team.lockstep,
    )
    facts = _facts(job, model, device) | _fit(job, stepper, flat, batches, validation, device)
    with stop_on_signals(job.hardware.quiet_hours) as stopping:
        loop = Loop(
            stepper,
            flat,
            make_optimizer(facts["optimizer"], flat.values, settings.weight_decay),
            batches,
            device=device,
            folder=job.scratch,
            plan=_plan(job, batches),
            measure=lambda: validate(
                stepper.measure,
                validation,
                device,
                settings.validation_tokens,
                window_tokens=stepper.window_tokens,
                team=ALONE if team.lockstep else team,
            ),
            stopping=stopping,
            team=team,
            tensorboard=settings.tensorboard,
        )
        if loop.resumed_from is not None:
            say(f"train: going on from step {loop.resumed_from} of {loop.plan.total_steps}")
        done = loop.run()
    if team.lockstep:
        unwrap(model)
    if team.leads:
        save_adapter(model, job.out / "adapter")
    facts |= {
        "step_path": stepper.name,
        "attention": stepper.attention,
        "kept_layers": stepper.kept_layers,
        "window_tokens": stepper.window_tokens,
        "processes": team.size,
        "resumed_from": loop.resumed_from,
        "total_steps": loop.plan.total_steps,
        "peak_vram_gib": max(facts["load_vram_gib"], peak_vram_gib()),
    }
    rows = batches.windows.row_count
    return finish(job.scratch, job.out, facts, done, rows) if team.leads else Summary("")


def _model(job: Job, device: torch.device) -> Any:
    settings, sharded = job.train, job.hardware.shard_base
    limit_memory(device, job.hardware.vram_gib, job.hardware.expandable_segments)
    wide = pick_dtype(settings.dtype, device, settings.quantization) == torch.float32
    base = load_model(
        job.weights,
        quantization=settings.quantization,
        device="cuda" if device.type == "cuda" and not sharded else "cpu",
        dtype="float32" if wide else "bfloat16",
        vram_gib=job.hardware.vram_gib,
        expandable_segments=job.hardware.expandable_segments,
        trainable=True,
        shardable=sharded,
        trust_remote_code=is_trusted(job.weights),
    )
    model = add_lora(
        base,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        targets=settings.target_modules,
        last_layers=settings.last_layers,
        extra_modules=settings.extra_modules,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        seed=settings.seed,
    )
    if job.adapter is not None:
        load_start(model, job.adapter)
    trained, total = parameter_counts(model)
    say(f"train: {trained:,} of {total:,} parameters are trained ({trained / total:.3%})")
    return model


def _facts(job: Job, model: Any, device: torch.device) -> dict[str, Any]:
    trained, total = parameter_counts(model)
    settings = job.train
    return {
        **job.start,
        "trainable_parameters": trained,
        "all_parameters": total,
        "trainable_share": trained / total,
        "optimizer": pick_optimizer(settings.optimizer, device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "rows_a_step": settings.batch_rows if settings.batch_tokens is None else None,
        "batch_tokens": settings.batch_tokens,
        "load_vram_gib": peak_vram_gib(),
    }


def _fit(
    job: Job,
    stepper: Stepper,
    flat: FlatParameters,
    batches: Batches,
    validation: Windows,
    device: torch.device,
) -> dict[str, Any]:
    """On a GPU: set the stepper to what fits now; tells what is expected."""
    if device.type != "cuda":
        return {}
    # loading leaves holes between what stays, which a step would not fill but add to
    free_gpu()
    settings = job.train

    def longest() -> Window:
        held_out = int(validation.tokens.max(initial=0))
        if held_out > batches.max_tokens:
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


def _plan(job: Job, batches: Batches) -> Plan:
    settings = job.train
    return Plan(
        total_steps=batches.total_steps(settings.max_steps, settings.epochs),
        peak_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        schedule=settings.schedule,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        log_every=settings.log_every,
        eval_every=settings.eval_every,
        checkpoint_every=settings.checkpoint_every,
        checkpoint_s=60 * settings.checkpoint_minutes,
    )
