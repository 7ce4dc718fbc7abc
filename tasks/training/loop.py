"""The steps of a run: read, forward, backward, update, log, checkpoint.

A loop of its own rather than transformers' Trainer: measured on a fast GPU, the host is slower than
the GPU at the batches that fit 10 GB, and most of its time goes into what the Trainer does around a
step. What is left here is what a step needs; nothing waits for the GPU but a logged loss. Dropout
and data order are functions of the step, which makes resuming exact.
"""

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tasks.core.models.device import free_gpu, peak_vram_gib
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import window_tensors
from tasks.core.progress import report, say
from tasks.training import checkpoints
from tasks.training.batches import Batches, split_window, trained_tokens
from tasks.training.distributed.data_parallel import ALONE, Team
from tasks.training.optimizer import Schedule, learning_rate
from tasks.training.report.counters import Counters, Interval
from tasks.training.report.metrics_log import MetricsLog
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.stepper import Stepper
from tasks.training.training_errors import all_masked, not_finite, stopped
from tasks.training.validation import Validation

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """Flat values of a run; see the settings of the same names.

    Attributes:
        total_steps: Optimizer steps of the whole run.
    """

    total_steps: int
    peak_rate: float
    warmup_steps: int
    schedule: Schedule
    max_grad_norm: float
    seed: int
    log_every: int
    eval_every: int | None
    checkpoint_every: int
    checkpoint_s: float


class Loop:
    """A run over `batches`, continued from the newest checkpoint in `folder`.

    Args:
        stepper: Forward and backward.
        flat: The trained parameters.
        optimizer: Over `flat.values`.
        batches: What each step sees.
        device: Where windows go.
        folder: Kept across a kill; checkpoints and metrics.jsonl live there.
        plan: Flat values.
        measure: Measures the validation split, or None.
        stopping: Whether a stop was asked for; a checkpoint is written then.
        team: The processes that share every step.
        tensorboard: Write event files, too.
    """

    def __init__(
        self,
        stepper: Stepper,
        flat: FlatParameters,
        optimizer: Any,
        batches: Batches,
        *,
        device: torch.device,
        folder: Path,
        plan: Plan,
        measure: Callable[[], Validation | None],
        stopping: Callable[[], bool] = lambda: False,
        team: Team = ALONE,
        tensorboard: bool = False,
    ) -> None:
        self.stepper, self.flat, self.optimizer = stepper, flat, optimizer
        self.batches, self.device, self.folder, self.plan = batches, device, folder, plan
        self.measure, self.stopping, self.team = measure, stopping, team
        self.counters = Counters()
        self._interval = Interval(time.perf_counter())
        self.resumed_from = self._resume()
        known = -1 if self.resumed_from is None else self.resumed_from
        self.log = MetricsLog(folder, known, tensorboard) if team.leads else None
        self.rate = 0.0

    def run(self) -> Counters:
        """Train to the end of the plan.

        Raises:
            PipelineError: The loss is not finite, nothing is trained, or a stop was asked for.
        """
        plan, counters = self.plan, self.counters
        if not counters.step:
            self._validate()
        begun = saved = self._interval.started = time.perf_counter()
        before = counters.seconds
        steps = self.batches.steps(counters.step, plan.total_steps)
        ready = next(steps, None)
        while ready is not None:
            counters.epoch, windows = ready
            norm = self._accumulate(windows)
            ready = next(steps, None)  # read while the GPU works
            self._update(counters.step)
            counters.step += 1
            counters.seconds = before + time.perf_counter() - begun
            last = counters.step == plan.total_steps
            if counters.step % plan.log_every == 0 or last:
                self._log(norm)
            if plan.eval_every and counters.step % plan.eval_every == 0 and not last:
                self._validate()
            stop, late = False, False
            if self.team.size == 1 or counters.step % plan.log_every == 0:  # asking costs a wait
                stop = self.team.any(self.stopping()) and not last
                late = self.team.any(time.perf_counter() - saved > plan.checkpoint_s)
            if counters.step % plan.checkpoint_every == 0 or late or last or stop:
                self._save()
                saved = time.perf_counter()
            if stop:
                raise stopped(counters.step, plan.total_steps)
        self._validate()
        return counters

    def _accumulate(self, windows: Sequence[Window]) -> Tensor:
        """Gradients of one step, clipped; returns their norm from before, unread."""
        counters, interval = self.counters, self._interval
        trained = trained_tokens(windows)
        tokens = sum(len(w.input_ids) for w in windows)
        self.flat.clear()
        if trained:
            seed = (self.plan.seed * 2**32 + counters.step) * self.team.size + self.team.rank
            own = self.team.share(windows)
            interval.losses.append(self._fitting(lambda: self._gradients(own, trained, seed)))
            self.team.add(self.flat.gradient)
        else:
            counters.skipped += 1
        counters.tokens += tokens
        counters.trained += trained
        interval.tokens += tokens
        interval.trained += trained
        ended = counters.epoch > 0 or counters.step + 1 == self.plan.total_steps
        if ended and not counters.trained:
            raise all_masked(counters.tokens)
        return self._fitting(lambda: self.flat.clip(self.plan.max_grad_norm))

    def _gradients(self, windows: Sequence[Window], trained: int, seed: int) -> Tensor:
        """Gradients of this process's windows, from zero; returns their summed loss."""
        self.flat.clear()
        parts = [p for w in windows for p in split_window(w, self.stepper.window_tokens)]
        return self.stepper.run([window_tensors(p, self.device) for p in parts], trained, seed)

    def _fitting(self, work: Callable[[], T]) -> T:
        """`work()`, begun again with less in memory each time that it does not fit.

        Batch, schedule, order of the data and step stay as they are.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                traceback.clear_frames(error.__traceback__)  # they hold what did not fit
                if not self.stepper.shrink():
                    raise
            free_gpu()
            say(
                f"train: out of GPU memory at step {self.counters.step + 1}; goes on with "
                f"{self.stepper.kept_layers} layers kept and {self.stepper.window_tokens:,} tokens "
                "at a time"
            )

    def _update(self, step: int) -> None:
        plan = self.plan
        self.rate = self.optimizer.param_groups[0]["lr"] = learning_rate(
            step,
            peak=plan.peak_rate,
            warmup_steps=plan.warmup_steps,
            total_steps=plan.total_steps,
            schedule=plan.schedule,
        )
        self.optimizer.step()

    def _log(self, norm: Tensor) -> None:
        """Write one line of metrics; this reads the loss and so waits for the GPU."""
        counters, interval = self.counters, self._interval
        total, grad_norm = self._total(), float(norm)
        seconds = time.perf_counter() - interval.started
        if not math.isfinite(total) or not math.isfinite(grad_norm):
            raise not_finite(counters.step, total / max(1, interval.trained), grad_norm)
        line = {
            "step": counters.step,
            "epoch": counters.epoch,
            "lr": self.rate,
            "grad_norm": grad_norm,
            "tokens": counters.tokens,
            "trained_tokens": counters.trained,
            "tokens_per_s": interval.tokens / max(seconds, 1e-9),
            "seconds": counters.seconds,
            "peak_vram_gib": peak_vram_gib(),
        }
        note = "no trained token"
        if interval.trained:
            line["loss"] = total / interval.trained
            note = f"loss {line['loss']:.3f}"
        note += f" · {line['tokens_per_s']:,.0f} tok/s"
        if self.device.type == "cuda":
            note += f" · {line['peak_vram_gib']:.1f} GiB"
        self._write(line)
        report("train", counters.step, self.plan.total_steps, note)
        self._interval = Interval(time.perf_counter())

    def _write(self, line: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.add(line)

    def _total(self) -> float:
        """Summed loss since the last logged step, over all processes."""
        own = self._fitting(self._interval.total)
        if self.team.size == 1:
            return own
        return float(self.team.add(torch.tensor(own, dtype=torch.float64, device=self.device)))

    def _validate(self) -> None:
        started = time.perf_counter()
        result = self._fitting(self.measure)
        if result is not None:
            self._write(
                {
                    "step": self.counters.step,
                    "validation_loss": result.loss,
                    "validation_token_accuracy": result.token_accuracy,
                    "validation_tokens": result.tokens,
                }
            )
        self._interval.started += time.perf_counter() - started

    def _save(self) -> None:
        """Write a checkpoint, unless the state is not finite: the one before stays the newest."""
        values, interval, total = self.flat.values.detach().cpu(), self._interval, self._total()
        if not bool(torch.isfinite(values).all()) or not math.isfinite(total):
            raise not_finite(self.counters.step, total, math.nan)
        if not self.team.leads:
            return
        state = {
            "counters": dict(vars(self.counters)),
            "values": values,
            "optimizer": checkpoints.on_cpu(self.optimizer.state_dict()),
            "losses": [float(x) for x in interval.losses] if self.team.size == 1 else [total],
            "trained": interval.trained,
            "tokens": interval.tokens,
        }
        checkpoints.save(self.folder / "checkpoints", self.counters.step, state)

    def _resume(self) -> int | None:
        """Take up the newest checkpoint; returns its step, None where the run starts anew."""
        state = checkpoints.load_newest(self.folder / "checkpoints")
        if state is None:
            return None
        self.counters = Counters(**state["counters"])
        with torch.no_grad():
            self.flat.values.copy_(state["values"])
        self.optimizer.load_state_dict(state["optimizer"])
        losses = [torch.tensor(x, device=self.device) for x in state["losses"] if self.team.leads]
        self._interval = Interval(time.perf_counter(), losses, state["trained"], state["tokens"])
        return self.counters.step
