"""Forecast of GPU memory and duration of the training in a plan.

Based on a measurement if this GPU was probed with this model shape before, else on formulas; the
text says which. It reads small files only and does not import PyTorch.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.messages import duration
from flows.plan_notes import training_cost
from flows.plan_notes.model_notes import read_checks
from flows.session import Session
from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.models import memory_probes
from tasks.core.settings.config import Config
from tasks.training.step_budget import AUTO

# measured with the demo, SmolLM2-135M on two cores: 207 tokens/s, 3.3 GiB at its peak
CPU_FLOPS = 7e10  # of a core
CPU_PROCESS_GIB = 0.6  # Python with its libraries
CPU_TIMES = 3.2  # of what a GPU would need: products are computed in 32 bit


def _tokens(number: int) -> str:
    return f"{number:,} tokens" if number < 1e6 else f"{number / 1e6:,.1f} M tokens"


@dataclass(frozen=True)
class Forecast:
    """Forecast of one training.

    Attributes:
        measured: By a probe on this GPU; else by formulas.
        gpu: Name of the GPU; None: this machine has none.
        limit_gib: GPU memory that the training may use; None: unknown.
        reserved_gib: GPU memory that it is expected to use.
        tokens: Training tokens; None: unknown until tokenize has run.
        seconds: Duration; None: speed or number of tokens are unknown.
    """

    measured: bool
    gpu: str | None
    limit_gib: float | None
    reserved_gib: float
    kept_layers: int
    layers: int
    tokens: int | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Fields for `finetune plan --json`."""
        return asdict(self)

    def __str__(self) -> str:
        limit = "" if self.limit_gib is None else f" of {self.limit_gib:.1f}"
        parts = [
            f"train: about {self.reserved_gib:.1f}{limit} GiB of GPU memory",
            f"{self.kept_layers} of {self.layers} layers kept",
        ]
        if self.tokens is not None:
            parts.append(_tokens(self.tokens))
        if self.seconds is not None:
            parts.append(f"about {duration(self.seconds)}")
        basis = f"measured on this {self.gpu}" if self.measured else "an estimate"
        if not self.measured and self.gpu is None:
            basis += "; there is no GPU here"
        elif not self.measured:
            basis += "; the run measures it first"
        return f"{', '.join(parts)} ({basis})."


@dataclass(frozen=True)
class CpuForecast:
    """Forecast of a training on the CPU.

    Attributes:
        measured: By an earlier training of this base here; else from the demo's.
        memory_gib: Of the process.
        tokens: Training tokens; None: unknown until tokenize has run.
        seconds: Duration; None: the number of tokens is unknown.
    """

    measured: bool
    cores: int
    memory_gib: float
    tokens: int | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Fields for `finetune plan --json`."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"train: about {self.memory_gib:.1f} GiB of memory on {self.cores} cores"]
        if self.tokens is not None:
            parts.append(_tokens(self.tokens))
        if self.seconds is not None:
            parts.append(f"about {duration(self.seconds)}")
        basis = "measured here" if self.measured else "an estimate; there is no GPU here"
        return f"{', '.join(parts)} ({basis})."


def forecast(session: Session) -> Forecast | CpuForecast | None:
    """The forecast for the plan of a session.

    None if no training is planned or the base does not exist yet.
    """
    plans = {plan.stage.name: plan for plan in session.plans}
    base, train = plans.get("base"), plans.get("train")
    config = session.config
    if train is None or train.decision == HIT:
        return None
    made = session.planner.artifacts.get("base") or (base.manifest if base else None)
    if made is None or (base is not None and base.decision != HIT):
        return None
    weights = session.store.folder("base", made.key) / "weights"
    done = training_cost.done_share(config, session.store, train, session.tokenized)
    gpu = memory_probes.find_gpu()
    if config.hardware.device == "cpu" or (gpu is None and config.hardware.vram_gib is None):
        return _on_cpu(session, train, weights, done)
    bound = config.tokenize.window_tokens
    if config.train.batch_tokens is None:
        bound = max(bound, config.train.joined_tokens)
    found = _probe(gpu, weights, config, bound)
    measured = found is not None
    if found is None:
        found = _estimate(weights, config, bound, gpu)
    if found is None:
        return None
    limit = memory_probes.limit_gib(gpu, config.hardware.vram_gib)
    kept = config.train.kept_layers
    if kept is None:
        kept = 0 if limit is None else found.kept_within(limit)
    tokens = training_cost.tokens_to_see(config, session.tokenized)
    speed = found.tokens_per_s * config.hardware.gpus
    return Forecast(
        measured=measured,
        gpu=gpu.name if gpu else None,
        limit_gib=limit,
        reserved_gib=found.reserved_gib(kept),
        kept_layers=kept,
        layers=found.layers,
        tokens=tokens,
        seconds=tokens * (1 - done) / speed if tokens and speed else None,
    )


def _estimate(
    weights: Path, config: Config, tokens: int, gpu: memory_probes.Gpu | None
) -> memory_probes.Probe | None:
    """By formulas, for dense models of the table of architectures and mixtures of experts."""
    from tasks.core.models import memory_estimate  # imported here: most plans need no formula
    from tasks.core.models.experts import gpu_memory

    shape = memory_estimate.DecoderShape.read(weights)
    if shape is not None:
        return memory_estimate.estimate(shape, config.train, tokens, gpu)
    checks = read_checks(weights.parent)
    if not checks.get("experts"):
        return None
    return gpu_memory.estimate(checks, config.train, tokens, gpu.name if gpu else None)


def _on_cpu(session: Session, train: StagePlan, weights: Path, done: float) -> CpuForecast | None:
    """Memory and duration on the CPU, by an earlier training here or by the demo's."""
    from tasks.core.models import memory_estimate

    config, cores = session.config, os.cpu_count() or 1
    tokens = training_cost.tokens_to_see(config, session.tokenized)
    if known := training_cost.pace(config, session.store, train):
        seconds = train.expected_seconds if tokens else None
        return CpuForecast(True, cores, known.peak_gib, tokens, seconds)
    shape = memory_estimate.DecoderShape.read(weights)
    if shape is None:
        return None
    tables = shape.vocabulary * shape.hidden
    found = memory_estimate.estimate(shape, config.train, config.tokenize.window_tokens, None)
    speed = cores * CPU_FLOPS / (memory_estimate.FLOP_PER_WEIGHT * (shape.linear_weights + tables))
    return CpuForecast(
        measured=False,
        cores=cores,
        memory_gib=CPU_PROCESS_GIB + CPU_TIMES * found.reserved_gib(found.layers),
        tokens=tokens,
        seconds=tokens * (1 - done) / speed if tokens else None,
    )


def _probe(
    gpu: memory_probes.Gpu | None, weights: Any, config: Config, bound: int
) -> memory_probes.Probe | None:
    """The stored probe of this GPU and shape with the longest window up to `bound`."""
    if gpu is None:
        return None
    known = memory_probes.read_all(memory_probes.facts(gpu, weights, config.train))
    fitting = [tokens for tokens in known if tokens <= memory_probes.rounded(bound)]
    return known[max(fitting)] if fitting else None


def step_budget(session: Session) -> str:
    """The arithmetic of `train.max_steps: auto`; "" if nothing is trained that way."""
    plans = {plan.stage.name: plan for plan in session.plans}
    train, tokenize = plans.get("train"), plans.get("tokenize")
    if session.config.train.max_steps != AUTO or train is None or train.decision == HIT:
        return ""
    budget = training_cost.budget(session.config, session.tokenized)
    if tokenize is None or tokenize.decision == HIT:
        return f"train: {budget or 'the number of steps follows from the tokens'}."
    last = f"; for the previous data: {budget}"
    if not budget:
        last = (
            ", which tokenize counts; to see it before the training: finetune run --until tokenize"
        )
    return f"train: the number of steps follows from the tokens{last}."


def resume_line(session: Session) -> str:
    """ "train resumes at step 340 of 2,000."; "" if it starts from the beginning."""
    train = next((plan for plan in session.plans if plan.stage.name == "train"), None)
    step = training_cost.resume_step(session.store, train) if train else None
    steps = training_cost.total_steps(session.config, session.tokenized)
    return f"train resumes at step {step:,}{f' of {steps:,}' if steps else ''}." if step else ""
