"""Forecast of GPU memory and duration of the training in a plan.

Based on a measurement if this GPU was probed with this model shape before, else on formulas; the
text says which. It reads small files only and does not import PyTorch.
"""

from dataclasses import asdict, dataclass
from typing import Any

from flows.messages import duration
from flows.session import Session
from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.cache.manifest import Manifest
from tasks.core.models import memory_estimate, memory_probes
from tasks.core.settings.config import Config
from tasks.training.step_budget import AUTO, StepBudget

CONTEXT_GIB = 0.5  # GPU memory of the CUDA context, outside of PyTorch's allocator


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
            parts.append(f"{self.tokens / 1e6:,.1f} M tokens")
        if self.seconds is not None:
            parts.append(f"about {duration(self.seconds)}")
        basis = f"measured on this {self.gpu}" if self.measured else "an estimate"
        if not self.measured and self.gpu is None:
            basis += "; there is no GPU here"
        elif not self.measured:
            basis += "; the run measures it first"
        return f"{', '.join(parts)} ({basis})."


def forecast(session: Session) -> Forecast | None:
    """The forecast for the plan of a session.

    None if no training is planned, the base does not exist yet, or the training runs on a CPU.
    """
    plans = {plan.stage.name: plan for plan in session.plans}
    base, train = plans.get("base"), plans.get("train")
    config = session.config
    if train is None or train.decision == HIT or config.hardware.device == "cpu":
        return None
    made = session.planner.artifacts.get("base") or (base.manifest if base else None)
    if made is None or (base is not None and base.decision != HIT):
        return None
    weights = session.store.folder("base", made.key) / "weights"
    gpu = memory_probes.find_gpu()
    if gpu is None and config.hardware.vram_gib is None:
        return None
    bound = config.tokenize.window_tokens
    if config.train.batch_tokens is None:
        bound = max(bound, config.train.joined_tokens)
    found = _probe(gpu, weights, config, bound)
    measured = found is not None
    if found is None:
        shape = memory_estimate.DecoderShape.read(weights)
        if shape is None:
            return None
        found = memory_estimate.estimate(shape, config.train, bound, gpu.name if gpu else None)
    limits = [x for x in (config.hardware.vram_gib, gpu and gpu.total_gib - CONTEXT_GIB) if x]
    limit = min(limits) if limits else None
    kept = config.train.kept_layers
    if kept is None:
        kept = 0 if limit is None else found.kept_within(limit)
    tokens = tokens_to_see(config, _tokenized(session, plans.get("tokenize")))
    speed = found.tokens_per_s * config.hardware.gpus
    return Forecast(
        measured=measured,
        gpu=gpu.name if gpu else None,
        limit_gib=limit,
        reserved_gib=found.reserved_gib(kept),
        kept_layers=kept,
        layers=found.layers,
        tokens=tokens,
        seconds=tokens / speed if tokens and speed else None,
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


def _tokenized(session: Session, plan: StagePlan | None) -> Manifest | None:
    """The tokenized data, or the last one if the plan creates it anew."""
    return session.planner.artifacts.get("tokenize") or (plan.manifest if plan else None)


def step_budget(session: Session) -> str:
    """The arithmetic of `train.max_steps: auto`; "" if nothing is trained that way."""
    plans = {plan.stage.name: plan for plan in session.plans}
    train, tokenize = plans.get("train"), plans.get("tokenize")
    if session.config.train.max_steps != AUTO or train is None or train.decision == HIT:
        return ""
    budget = _budget(session.config, _tokenized(session, tokenize))
    if tokenize is None or tokenize.decision == HIT:
        return f"train.max_steps auto: {budget or 'decided after tokenize'}."
    last = f"; for the last data: {budget}" if budget else ""
    return f"train.max_steps auto: decided after tokenize{last}."


def _budget(config: Config, tokenized: Manifest | None) -> StepBudget | None:
    """What auto becomes; None without tokenized data."""
    metrics = tokenized.summary.get("metrics", {}) if tokenized else {}
    tokens, windows = metrics.get("train_tokens"), metrics.get("train_windows")
    return StepBudget.of(config.train, int(tokens), int(windows)) if tokens and windows else None


def tokens_to_see(config: Config, tokenized: Manifest | None) -> int | None:
    """Tokens of all steps; None if they depend on data that does not exist yet."""
    train = config.train
    if train.max_steps == AUTO:
        budget = _budget(config, tokenized)
        return budget.steps * budget.batch_tokens if budget else None
    metrics = tokenized.summary.get("metrics", {}) if tokenized else {}
    there = metrics.get("train_tokens")
    rows = tokenized.summary.get("rows_out") if tokenized else None
    a_step: float | None = train.batch_tokens
    if a_step is None and rows:
        splits = ("train_tokens", "validation_tokens", "test_tokens")
        a_step = train.batch_rows * sum(metrics.get(name, 0) for name in splits) / rows
    limits: list[float] = []
    if isinstance(train.max_steps, int) and a_step:
        limits.append(train.max_steps * a_step)
    if train.epochs is not None and there:
        limits.append(train.epochs * there)
    return int(min(limits)) if limits else None
