"""Real tokens/s, GPU time and memory of a training step at the shape of stable-code-3b.

    python -m benchmarks.training.speed [--vram-gib 9] [--only NAME ...] [--kernels]
    python -m benchmarks.training.speed --family gemma2 starcoder2   # or all: against a Llama

Each variant runs the train stage's own loop (paged 8-bit AdamW, a log line every second step, a
checkpoint at the end) with the recipe's LoRA (rank 8, alpha 32, dropout 0.05, every linear layer
but the head) under an allocator cap, on rows of lognormal length packed without crossing. The
original recipe runs by transformers' Trainer. Needs a CUDA GPU; nothing is downloaded.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.training import shape
from benchmarks.training.peers import Meter, run_recipe
from tasks.core.models.device import GIB, free_gpu, limit_memory
from tasks.core.models.memory_probes import TARGET_SHARE
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import window_tensors
from tasks.core.settings.train import TrainSettings
from tasks.training.fast.buffers import fixed_bytes
from tasks.training.fast.model.groups import parameter_order
from tasks.training.fast.step import FastStepper
from tasks.training.loop import Loop
from tasks.training.lora import add_lora
from tasks.training.optimizer import make_optimizer, pick_optimizer
from tasks.training.report.metrics_log import METRICS_FILE, read_metrics
from tasks.training.steppers.autograd_stepper import AutogradStepper
from tasks.training.steppers.flat_parameters import FlatParameters

PROFILED_STEPS = 3
OVERHEAD_BYTES = 250 * 2**20  # what libraries and small tensors take


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: As the table shows it.
        path: recipe, plain or fast.
        window_tokens: Longest window.
        windows: Per step.
        kept: Layers that keep activations; None: chosen by memory.
        steps: Timed, after as many as warm up.
        model: A key of `shape.FAMILIES`.
        whole: One sample a window.
        rows: Rows per window, if it is not packed.
        backward: Of the fast path: bf16 or int8.
    """

    name: str
    path: str
    window_tokens: int
    windows: int
    kept: int | None = 0
    steps: int = 12
    model: str = "stablelm"
    whole: bool = False
    rows: int = 0
    backward: str = "bf16"


VARIANTS = (
    Variant("fast, 4,096 a step", "fast", 4096, 1, None, 40),
    Variant("fast, 16,384 a step in 4 windows", "fast", 4096, 4, None, 12),
    Variant("fast int8, 4,096 a step", "fast", 4096, 1, None, 40, backward="int8"),
    Variant("fast int8, 16,384 a step in 4 windows", "fast", 4096, 4, None, 12, backward="int8"),
    Variant("fast, 16,896 a step in 6 windows", "fast", 2816, 6, None, 12),
    Variant("fast int8, 16,896 a step in 6 windows", "fast", 2816, 6, None, 12, backward="int8"),
    Variant("fast, 16,384 a step in 2 windows", "fast", 8192, 2, None, 12),
    Variant("fast, 4,096 a step, nothing kept", "fast", 4096, 1, 0, 30),
    Variant("fast, 4 rows a step (joined)", "fast", 8192, 1, None, 60, rows=4),
    Variant("fast, one 16,384-token sample", "fast", 16_384, 1, None, 4, whole=True),
    Variant("plain, 4,096 a step", "plain", 4096, 1, 0, 16),
    Variant("plain, 16,384 a step in 4 windows", "plain", 4096, 4, 0, 5),
    Variant("plain, one 16,384-token sample", "plain", 16_384, 1, 0, 3, whole=True),
    Variant("recipe, 4 rows a step, Trainer", "recipe", 2048, 4, 0, 12, rows=1),
    Variant("fast, Llama, 4,096 a step", "fast", 4096, 1, None, 30, "llama"),
    Variant("fast int8, Llama, 4,096 a step", "fast", 4096, 1, None, 30, "llama", backward="int8"),
)


def family_variants(names: list[str]) -> list[Variant]:
    """A Llama, and families of the same size on the fast path."""
    wanted = list(shape.FAMILIES) if names == ["all"] else ["llama", *names]
    return [Variant(f"fast, {name}, 4,096 a step", "fast", 4096, 1, 0, 20, name) for name in wanted]


class Synthetic:
    """Steps of synthetic windows, for the loop."""

    def __init__(self, windows: Iterator[Window], windows_a_step: int) -> None:
        self._windows, self._size = windows, windows_a_step

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, list[Window]]]:
        """As `batches.Batches.steps`."""
        for _ in range(start, stop):
            yield 0, list(itertools.islice(self._windows, self._size))


def windows_for(variant: Variant) -> Iterator[Window]:
    """The data of a variant."""
    if variant.whole:
        return (shape.window_of([variant.window_tokens], i) for i in itertools.count())
    if variant.rows:
        return shape.joined_rows(variant.rows)
    return shape.packed_windows(variant.window_tokens)


def run_ours(variant: Variant, model: Any, flat: FlatParameters, vram_gib: float) -> dict[str, Any]:
    """Run a variant through the stage's loop; numbers by name."""
    stepper: Any
    if variant.path == "fast":
        stepper = FastStepper(
            model,
            flat,
            max_tokens=variant.window_tokens,
            kept_layers=variant.kept or 0,
            backward=variant.backward,
        )
        if variant.kept is None and flat.values.device.type == "cuda":
            stepper.resize(kept_within(stepper, vram_gib), variant.window_tokens)
    else:
        stepper = AutogradStepper(model, variant.kept or 0)
    device, data = flat.values.device, windows_for(variant)
    cuda = device.type == "cuda"
    total = 2 * variant.steps
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(
            stepper,
            flat,
            make_optimizer(pick_optimizer("auto", device), flat.values, 0.01),
            Synthetic(data, variant.windows),  # type: ignore[arg-type]
            device=device,
            folder=Path(folder),
            settings=TrainSettings(warmup_steps=4, checkpoint_every=10_000, checkpoint_minutes=1e9),
            total_steps=total,
            measure=lambda: None,
        )
        loop.run()
        lines = read_metrics(Path(folder) / METRICS_FILE)
    first, last = lines[len(lines) // 2 - 1], lines[-1]
    result = {
        "kept": stepper.kept_layers,
        "tokens/s": (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"]),
        "tokens a step": (last["tokens"] - first["tokens"]) / (last["step"] - first["step"]),
        "allocated": torch.cuda.max_memory_allocated() / GIB if cuda else 0.0,
        "reserved": torch.cuda.max_memory_reserved() / GIB if cuda else 0.0,
        "loss": last["loss"],
        "busy ms": 0.0,
    }
    if not cuda:
        return result
    steps = [
        [window_tensors(w, device) for w in itertools.islice(data, variant.windows)]
        for _ in range(PROFILED_STEPS)
    ]

    def work() -> None:
        for windows in steps:
            stepper.run(windows, sum(w.trained_tokens for w in windows), 1)

    tokens = sum(w.tokens for windows in steps for w in windows)
    return result | busy(work, tokens)


def kept_within(stepper: FastStepper, vram_gib: float) -> int:
    """How many layers may keep their activations, as the stage would choose."""
    room = TARGET_SHARE * vram_gib * GIB - torch.cuda.memory_allocated() - OVERHEAD_BYTES
    free = room - fixed_bytes(stepper.parts, stepper.window_tokens, wide=stepper.wide)
    return max(0, int(free / stepper.layer_bytes()))


def busy(work: Callable[[], None], tokens: int) -> dict[str, Any]:
    """GPU time of `work` and its greediest kernels, per 4,096 tokens."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    times: dict[str, tuple[float, int]] = {}
    for event in profiler.key_averages():
        spent = event.self_device_time_total * 1e-3 * 4096 / tokens
        if spent:
            times[event.key] = (spent, round(event.count * 4096 / tokens))
    return {
        "busy ms": sum(spent for spent, _ in times.values()),
        "kernels": sorted(times.items(), key=lambda item: -item[1][0]),
    }


def tuned(kind: str, changes: dict[str, Any] | None = None) -> tuple[Any, FlatParameters]:
    """A fresh model with the recipe's LoRA."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = shape.make_model(kind, device=device, changes=changes)
    model = add_lora(model, rank=8, alpha=32, dropout=0.05)
    return model, FlatParameters(model, parameter_order)


def show(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the variants one after another; each failure is a line of its own."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vram-gib", type=float, default=9.0)
    options.add_argument("--only", nargs="*", default=[], help="parts of variants' names")
    options.add_argument("--family", nargs="*", default=[], help="families, or all of them")
    options.add_argument("--kernels", action="store_true", help="show where GPU time goes")
    given = options.parse_args()
    limit_memory(torch.device("cuda"), given.vram_gib)
    show(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cap {given.vram_gib} GiB\n")
    show("| variant | layers kept | real tokens/s | GPU-busy ms per 4,096 | peak GiB | reserved |")
    show("|---|---|---|---|---|---|")
    known: dict[str, tuple[Any, FlatParameters]] = {}
    for variant in family_variants(given.family) if given.family else VARIANTS:
        if given.only and not any(part in variant.name for part in given.only):
            continue
        began = time.perf_counter()
        try:
            if variant.path == "recipe" or variant.model not in known:
                known.clear()
                free_gpu()
            torch.cuda.reset_peak_memory_stats()
            if variant.path == "recipe":
                rows = [w.input_ids.tolist() for w in itertools.islice(shape.joined_rows(1), 128)]
                steps = [rows[i : i + 4] for i in range(0, len(rows), 4)]
                meter = Meter(2, variant.steps, 4 * PROFILED_STEPS)
                result = run_recipe(shape.make_model(variant.model), steps, meter)
            else:
                if variant.model not in known:
                    known[variant.model] = tuned(variant.model)
                    torch.cuda.reset_peak_memory_stats()
                result = run_ours(variant, *known[variant.model], given.vram_gib)
        except Exception as error:  # a variant that fails must not hide the others
            show(f"| {variant.name} | {type(error).__name__}: {str(error)[:300]} |")
            if given.kernels:
                import traceback

                traceback.print_exc(limit=-4)
            known.clear()
            free_gpu()
            continue
        free_gpu()
        busy_ms = f"{result['busy ms']:,.1f}" if "busy ms" in result else ""
        show(
            f"| {variant.name} | {result.get('kept', '')} | {result['tokens/s']:,.0f} | "
            f"{busy_ms} | {result['allocated']:.2f} | {result['reserved']:.2f} |"
            f" <!-- loss {result.get('loss', 0):.3f}, {time.perf_counter() - began:.0f} s -->"
        )
        if given.kernels:
            for name, (spent, count) in result.get("kernels", [])[:22]:
                show(f"    {spent:7.2f} ms {count:5d}x  {name[:100]}")


if __name__ == "__main__":
    main()
