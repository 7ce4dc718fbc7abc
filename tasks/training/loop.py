"""The training loop: read, forward, backward, optimizer step, log, validate, checkpoint.

A loop of its own instead of transformers' Trainer: at the batch sizes that fit 10 GB, the host is
slower than a fast GPU, and most of its time goes into what the Trainer does around a step
(benchmarks/README.md, side by side). Nothing here waits for the GPU except a logged loss and, in
float16, the check of the gradients. Dropout and data order are pure functions of the step, so that
a resumed run is exact.
"""

import math
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tasks.core.errors import PipelineError, StopError, TrainingError
from tasks.core.models.device import beyond_float16, free_gpu, peak_vram_gib
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import window_tensors
from tasks.core.progress import report, say
from tasks.core.settings.train import TrainSettings
from tasks.training import checkpoints
from tasks.training.batches import Batches, split_window, trained_rows, trained_tokens
from tasks.training.distributed.data_parallel import SINGLE_PROCESS, DataParallel
from tasks.training.optimizer import learning_rate
from tasks.training.report.metrics_log import Counters, LogInterval, MetricsLog
from tasks.training.report.trackers import Trackers
from tasks.training.steppers.flat_parameters import FlatParameters
from tasks.training.steppers.loss_scale import LossScale
from tasks.training.steppers.stepper import Stepper, shrink
from tasks.training.validation import Validation

T = TypeVar("T")


class Loop:
    """A run over `batches`, resumed from the newest checkpoint in `folder`.

    Args:
        stepper: Forward and backward.
        flat: The trained parameters.
        optimizer: Over `flat.values`.
        batches: The windows of each step.
        device: Device of the windows.
        folder: Survives a killed process; holds checkpoints and metrics.jsonl.
        settings: Schedule, clipping, seed, and the intervals of logs, validations, checkpoints.
        total_steps: Optimizer steps of the whole run.
        measure: Validates; returns None without validation data.
        stop_requested: Whether to write a checkpoint and stop.
        parallel: The processes that share every step.
        loss_scale: In float16; replaced by that of a checkpoint.
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
        settings: TrainSettings,
        total_steps: int,
        measure: Callable[[], Validation | None],
        stop_requested: Callable[[], bool] = lambda: False,
        parallel: DataParallel = SINGLE_PROCESS,
        loss_scale: LossScale | None = None,
    ) -> None:
        self.stepper, self.flat, self.optimizer, self.batches = stepper, flat, optimizer, batches
        self.device, self.folder = device, folder
        self.settings, self.total_steps = settings, total_steps
        self.measure, self.stop_requested, self.parallel = measure, stop_requested, parallel
        self.loss_scale = loss_scale
        self.counters = Counters()
        self._interval = LogInterval(time.perf_counter())
        self.resumed_from = self._resume()
        known = -1 if self.resumed_from is None else self.resumed_from
        self.log = None
        if parallel.is_main:
            shown = settings.model_dump(mode="json")
            trackers = Trackers(settings.track_with, folder, {"train": shown}, known)
            self.log = MetricsLog(folder, known, total_steps, trackers)
        self.rate = 0.0

    def run(self) -> Counters:
        """Train up to `total_steps`.

        Raises:
            PipelineError: The loss is not finite, or all labels are masked, or numbers exceed the
                range of float16.
            StopError: A stop was requested; a checkpoint of this step is written.
        """
        settings, counters = self.settings, self.counters
        if not counters.step:
            self._validate()
        begun = saved = self._interval.started = time.perf_counter()
        before = counters.seconds
        report("train", counters.step, self.total_steps)  # what the time left is counted from
        steps = self.batches.steps(counters.step, self.total_steps)
        ready = next(steps, None)
        while ready is not None:
            counters.epoch, windows = ready
            norm = self._accumulate(windows)
            ready = next(steps, None)  # kernels are queued: reading overlaps with the GPU's work
            if self._accepts(norm, windows):
                self._update(counters.step)
            counters.step += 1
            counters.seconds = before + time.perf_counter() - begun
            last = counters.step == self.total_steps
            logs = counters.step % settings.log_every == 0
            if logs or last:
                self._log(norm)
            every = settings.eval_every
            if every and counters.step % every == 0 and not last:
                self._validate()
            stop, late = False, False
            # all processes must decide alike; asking the others waits for them, so only at logs
            if self.parallel.size == 1 or logs:
                stop = self.parallel.any(self.stop_requested()) and not last
                minutes = (time.perf_counter() - saved) / 60
                late = self.parallel.any(minutes > settings.checkpoint_minutes)
            if counters.step % settings.checkpoint_every == 0 or late or last or stop:
                self._save()
                saved = time.perf_counter()
            if stop:
                raise StopError(
                    f"training was stopped at step {counters.step} of {self.total_steps}",
                    "Run again: it resumes from this step.",
                )
        self._validate()
        return counters

    def close(self) -> None:
        """End what tracks the training."""
        if self.log is not None:
            self.log.close()

    def _accumulate(self, windows: Sequence[Window]) -> Tensor:
        """Clipped gradients of one step; returns their norm before clipping, unread."""
        counters, interval = self.counters, self._interval
        trained = trained_tokens(windows)
        tokens = sum(len(w.input_ids) for w in windows)
        self.flat.clear()
        if trained:
            # distinct for every step and process, so that no dropout mask repeats
            seed = self.settings.seed * 2**32 + counters.step
            seed = seed * self.parallel.size + self.parallel.rank
            own = self.parallel.share(windows)
            by_row = self.settings.loss_average == "rows"
            weight = trained / trained_rows(windows) if by_row else None
            interval.losses.append(
                self._fitting(lambda: self._gradients(own, trained, weight, seed))
            )
            self.parallel.add(self.flat.gradient)
        else:
            counters.skipped += 1
        counters.tokens += tokens
        counters.trained += trained
        interval.tokens += tokens
        interval.trained += trained
        ended = counters.epoch > 0 or counters.step + 1 == self.total_steps
        if ended and not counters.trained:
            raise PipelineError(
                f"all labels are masked: 0 of {counters.tokens:,} tokens are trained",
                "Check that completions are not empty and that tokenize.max_tokens leaves room "
                "for them.",
            )
        return self._fitting(lambda: self.flat.clip(self.settings.max_grad_norm, self._scale))

    @property
    def _scale(self) -> float:
        return self.loss_scale.value if self.loss_scale else 1.0

    def _gradients(
        self, windows: Sequence[Window], trained: int, row_weight: float | None, seed: int
    ) -> Tensor:
        """Gradients of this process's windows; returns their summed loss."""
        self.flat.clear()  # again: an attempt that ran out of memory left a part of them
        parts = [p for w in windows for p in split_window(w, self.stepper.window_tokens)]
        tensors = [window_tensors(p, self.device, row_weight) for p in parts]
        return self.stepper.run(tensors, trained / self._scale, seed)

    def _accepts(self, norm: Tensor, windows: Sequence[Window]) -> bool:
        """Whether the step may be taken; in float16 only if its gradients are finite.

        In other types nothing waits for the GPU, and the next log finds them.
        """
        if self.loss_scale is None:
            return True
        if math.isfinite(float(norm)):  # of the summed gradient, so all processes decide alike
            self.loss_scale.passed()
            return True
        counters, interval = self.counters, self._interval
        counters.overflowed += 1
        in_forward = self.parallel.any(not math.isfinite(float(interval.losses[-1])))
        if in_forward:
            interval.losses.pop()
            interval.trained -= trained_tokens(windows)
        self.loss_scale.failed(counters.step, in_forward)
        return False

    def _fitting(self, work: Callable[[], T]) -> T:
        """`work()`, repeated at a smaller size each time that the GPU is out of memory.

        Batch, schedule, order of the data and step do not change.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                traceback.clear_frames(error.__traceback__)  # frames hold tensors
                if not shrink(self.stepper):
                    raise
            free_gpu()
            say(
                f"train: out of GPU memory at step {self.counters.step + 1}; continues with "
                f"{self.stepper.kept_layers} layers kept and {self.stepper.window_tokens:,} tokens "
                "at a time"
            )

    def _update(self, step: int) -> None:
        self.rate = self.optimizer.param_groups[0]["lr"] = learning_rate(
            step,
            peak=self.settings.learning_rate,
            warmup_steps=self.settings.warmup_steps,
            total_steps=self.total_steps,
            schedule=self.settings.schedule,
        )
        self.optimizer.step()

    def _log(self, norm: Tensor) -> None:
        """Write one line of metrics; reading the loss waits for the GPU."""
        counters, interval = self.counters, self._interval
        total, grad_norm = self._total(), float(norm)
        seconds = time.perf_counter() - interval.started
        skipped = self.loss_scale is not None and not math.isfinite(grad_norm)
        if not math.isfinite(total) or (not math.isfinite(grad_norm) and not skipped):
            raise _diverged(counters.step, total / max(1, interval.trained), grad_norm)
        line = {
            "step": counters.step,
            "epoch": counters.epoch,
            "lr": self.rate,
            "tokens": counters.tokens,
            "trained_tokens": counters.trained,
            "tokens_per_s": interval.tokens / max(seconds, 1e-9),
            "seconds": counters.seconds,
            "peak_vram_gib": peak_vram_gib(),
        }
        if not skipped:
            line["grad_norm"] = grad_norm
        if self.loss_scale is not None:
            line |= {"loss_scale": self.loss_scale.value, "skipped_steps": counters.overflowed}
        note = "no trained token"
        if interval.trained:
            line["loss"] = total / interval.trained
            note = f"loss {line['loss']:.3f}"
        note += f" · {line['tokens_per_s']:,.0f} tokens/s"
        if self.device.type == "cuda":
            note += f" · {line['peak_vram_gib']:.1f} GiB"
        self._write(line)
        report("train", counters.step, self.total_steps, note)
        self._interval = LogInterval(time.perf_counter())

    def _write(self, line: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.add(line)

    def _total(self) -> float:
        """Summed loss since the last logged step, over all processes."""
        own = self._fitting(self._interval.total)
        if self.parallel.size == 1:
            return own
        return float(self.parallel.add(torch.tensor(own, dtype=torch.float64, device=self.device)))

    def _validate(self) -> None:
        started = time.perf_counter()
        result = self._fitting(self.measure)
        if result is not None:
            if self.loss_scale and not self.counters.step and not math.isfinite(result.loss):
                raise beyond_float16("the validation loss before the first step")
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
        """Write a checkpoint; raises if the state is not finite, to keep the last good one."""
        values, interval, total = self.flat.values.detach().cpu(), self._interval, self._total()
        if not bool(torch.isfinite(values).all()) or not math.isfinite(total):
            raise _diverged(self.counters.step, total, math.nan)
        if not self.parallel.is_main:
            return
        state = {
            "counters": dict(vars(self.counters)),
            "values": values,
            "optimizer": checkpoints.on_cpu(self.optimizer.state_dict()),
            "losses": [float(x) for x in interval.losses] if self.parallel.size == 1 else [total],
            "trained": interval.trained,
            "tokens": interval.tokens,
            "loss_scale": dict(vars(self.loss_scale)) if self.loss_scale else None,
        }
        checkpoints.save(self.folder / "checkpoints", self.counters.step, state)

    def _resume(self) -> int | None:
        """Load the newest checkpoint; returns its step, None if there is none."""
        state = checkpoints.load_newest(self.folder / "checkpoints")
        if state is None:
            return None
        self.counters = Counters(**state["counters"])
        with torch.no_grad():
            self.flat.values.copy_(state["values"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.loss_scale and state.get("loss_scale"):  # none if another GPU wrote it
            self.loss_scale = LossScale(**state["loss_scale"])
        losses = [
            torch.tensor(x, device=self.device) for x in state["losses"] if self.parallel.is_main
        ]
        self._interval = LogInterval(time.perf_counter(), losses, state["trained"], state["tokens"])
        return self.counters.step


def _diverged(step: int, loss: float, grad_norm: float) -> TrainingError:
    return TrainingError(
        f"training diverged at step {step}: loss {loss}, gradient norm {grad_norm}",
        "Lower train.learning_rate or lengthen train.warmup_steps; the adapter was not published.",
    )
