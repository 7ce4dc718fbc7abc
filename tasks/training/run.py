"""The stage: windows and a base in, an adapter out; the only room that touches settings and disk.

Beside the adapter it leaves metrics.jsonl, loss.png and training.json.
"""

import json
import shutil
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tasks.core.config import View
from tasks.core.errors import PipelineError
from tasks.core.modeling import (
    free_gpu,
    load_model,
    peak_vram_gib,
    pick_device,
    reset_peak,
)
from tasks.core.progress import say
from tasks.core.stage import CHAMPION, Inputs, Summary, Work
from tasks.core.windows import Windows
from tasks.training.batches import Batches
from tasks.training.choice import choose_stepper
from tasks.training.fast_model import parameter_order
from tasks.training.flat import FlatParameters
from tasks.training.loop import Counters, Loop, Plan
from tasks.training.lora import add_lora, load_start, parameter_counts, save_adapter
from tasks.training.metrics import read_metrics
from tasks.training.optimizer import make_optimizer, pick_optimizer
from tasks.training.picture import draw_loss
from tasks.training.replay import write_chosen
from tasks.training.stopping import stop_on_signals
from tasks.training.validation import Validation, validate


def run(config: View, inputs: Inputs, work: Work) -> Summary:
    """Train an adapter; frees the GPU on every way out.

    Raises:
        PipelineError: Nothing to train on, all labels masked, divergence, settings that do not fit
            the base model or the machine, or a stop that was asked for.
    """
    settings = config.train
    device = pick_device(config.hardware.device)
    data, start = _start(inputs, settings.start.replay_share, settings.seed, work.scratch)
    batches = Batches(
        Windows.open(data),
        batch_rows=settings.batch_rows,
        batch_tokens=settings.batch_tokens,
        joined_tokens=settings.joined_tokens,
        seed=settings.seed,
    )
    validation = Windows.open(inputs["tokenize.validation"])
    reset_peak()
    try:
        return _train(config, inputs, batches, validation, device, work, start)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they would keep the model alive
        if isinstance(error, torch.OutOfMemoryError):
            raise out_of_memory(config.hardware.vram_gib) from error
        raise
    finally:
        free_gpu()


def _start(
    inputs: Inputs, replay_share: float, seed: int, scratch: Path
) -> tuple[Path, dict[str, Any]]:
    """The rows to train on, and what is told about the start of the training."""
    data, before = inputs["tokenize.train"], inputs.get(f"{CHAMPION}tokenize.train")
    if before is None:
        return data, {"start": "base"}
    replay = write_chosen(data, before, replay_share, seed, scratch / "chosen")
    say(
        f"train: goes on from the champion: {replay.new:,} new rows, {replay.old:,} of "
        f"{replay.known:,} old ones"
    )
    return scratch / "chosen", {"start": "champion", "rows": asdict(replay)}


def _train(
    config: View,
    inputs: Inputs,
    batches: Batches,
    validation: Windows,
    device: torch.device,
    work: Work,
    start: dict[str, Any],
) -> Summary:
    settings = config.train
    model = _model(config, inputs["base.weights"], device)
    if (before := inputs.get(f"{CHAMPION}train.adapter")) is not None:
        load_start(model, before)
    flat = FlatParameters(model, parameter_order)
    optimizer_name = pick_optimizer(settings.optimizer, device)
    stepper = choose_stepper(
        model,
        flat,
        fast_path=settings.fast_path,
        kept_layers=settings.kept_layers,
        max_tokens=max(batches.max_tokens, int(validation.tokens.max(initial=1))),
        vram_gib=config.hardware.vram_gib,
    )
    total = batches.total_steps(settings.max_steps, settings.epochs)
    with stop_on_signals(config.hardware.quiet_hours) as stopping:
        loop = Loop(
            stepper,
            flat,
            make_optimizer(optimizer_name, flat.values, settings.weight_decay),
            batches,
            device=device,
            folder=work.scratch,
            plan=Plan(
                total_steps=total,
                peak_rate=settings.learning_rate,
                warmup_steps=settings.warmup_steps,
                schedule=settings.schedule,
                max_grad_norm=settings.max_grad_norm,
                seed=settings.seed,
                log_every=settings.log_every,
                eval_every=settings.eval_every,
                checkpoint_every=settings.checkpoint_every,
                checkpoint_s=60 * settings.checkpoint_minutes,
            ),
            measure=lambda: validate(
                stepper.measure, validation, device, settings.validation_tokens
            ),
            stopping=stopping,
        )
        if loop.resumed_from is not None:
            say(f"train: going on from step {loop.resumed_from} of {total}")
        done = loop.run()
    save_adapter(model, work.out / "adapter")
    facts = {
        **_counts(model),
        **start,
        "step_path": stepper.name,
        "attention": stepper.attention,
        "kept_layers": stepper.kept_layers,
        "optimizer": optimizer_name,
        "device": _device_name(device),
        "resumed_from": loop.resumed_from,
        "total_steps": total,
        "rows_a_step": settings.batch_rows if settings.batch_tokens is None else None,
        "batch_tokens": settings.batch_tokens,
    }
    return _finish(work, facts, done, batches.windows.row_count)


def _model(config: View, weights: Path, device: torch.device) -> Any:
    settings = config.train
    base = load_model(
        weights,
        quantization=settings.quantization,
        device="cuda" if device.type == "cuda" else "cpu",
        dtype=settings.dtype,
        vram_gib=config.hardware.vram_gib,
        expandable_segments=config.hardware.expandable_segments,
        trainable=True,
    )
    model = add_lora(
        base,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        targets=settings.target_modules,
        last_layers=settings.last_layers,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        seed=settings.seed,
    )
    trained, total = parameter_counts(model)
    say(f"train: {trained:,} of {total:,} parameters are trained ({trained / total:.3%})")
    return model


def out_of_memory(vram_gib: float | None) -> PipelineError:
    """The error of a GPU that is too small for the longest window."""
    limit = "all of the GPU's memory" if vram_gib is None else f"{vram_gib:g} GiB"
    return PipelineError(
        f"training needs more than {limit}",
        "Lower tokenize.window_tokens or train.joined_tokens, set train.kept_layers to 0, or raise "
        "hardware.vram_gib; a checkpoint that was written is taken up again.",
    )


def _counts(model: Any) -> dict[str, Any]:
    trained, total = parameter_counts(model)
    return {
        "trainable_parameters": trained,
        "all_parameters": total,
        "trainable_share": trained / total,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _finish(work: Work, facts: dict[str, Any], done: Counters, rows: int) -> Summary:
    """Write the extras and sum the run up."""
    shutil.copyfile(work.scratch / "metrics.jsonl", work.out / "metrics.jsonl")
    lines = read_metrics(work.out / "metrics.jsonl")
    draw_loss(lines, work.out / "loss.png")
    losses = [line["loss"] for line in lines if "loss" in line]
    held = [line for line in lines if "validation_loss" in line]
    speed = done.tokens / max(done.seconds, 1e-9)
    facts = facts | asdict(done)
    facts |= {
        "tokens_per_step": done.tokens / max(1, done.step),
        "tokens_per_s": speed,
        "peak_vram_gib": peak_vram_gib(),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "validation": [asdict(_validation(line)) | {"step": line["step"]} for line in held],
    }
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (work.out / "training.json").write_text(text, encoding="utf-8")
    metrics = {"loss": losses[-1], "tokens_per_s": speed, "peak_vram_gib": facts["peak_vram_gib"]}
    shown = f"loss {losses[0]:.3f} -> {losses[-1]:.3f}"
    if held:
        metrics |= {
            "validation_loss_before": held[0]["validation_loss"],
            "validation_loss": held[-1]["validation_loss"],
            "validation_token_accuracy": held[-1]["validation_token_accuracy"],
        }
        first, last = held[0]["validation_loss"], held[-1]["validation_loss"]
        shown = f"validation loss {first:.3f} -> {last:.3f}"
    return Summary(
        f"{done.step:,} steps, {done.tokens:,} tokens, {shown}",
        rows_in=rows,
        counts={"steps without a trained token": done.skipped} if done.skipped else {},
        metrics=metrics,
    )


def _validation(line: dict[str, Any]) -> Validation:
    return Validation(
        line["validation_loss"], line["validation_token_accuracy"], line["validation_tokens"]
    )
