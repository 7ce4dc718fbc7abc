"""Trials of a sweep: which trainings run, with which share of the steps, and as which request.

A trial is one training of one variant with one seed. It is an ordinary run of the flow up to
`evaluate`, which measures the validation split and nothing else: the shared stages are cache hits,
and so is a trial that has run before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flows.session import Request
from flows.sweep.grid import Variant
from tasks.core.cache.decision import Selection
from tasks.core.errors import PipelineError
from tasks.core.settings.train import TrainSettings
from tasks.training.step_budget import AUTO, PASSES

LAST = "evaluate"
# the validation split alone: problems, samples and untouched texts are for the winner
VALIDATION_ONLY = (
    "evaluate.split=validation",
    "evaluate.samples=0",
    "evaluate.humaneval_problems=0",
    "evaluate.held_out_problems=0",
    "evaluate.infilling_problems=0",
    "evaluate.completion_spans=0",
    "evaluate.probe_problems=0",
    "evaluate.sets=[]",
)
LENGTH = (
    "train.max_steps",
    "train.epochs",
    "train.warmup_steps",
)  # what a shorter training changes
MOST_HALVINGS = 3  # an eighth of the steps is the least that is compared


@dataclass(frozen=True)
class Round:
    """Trials of equal length.

    Attributes:
        count: Variants in it: the best of the round before.
        share: Of the full number of steps.
    """

    count: int
    share: float


@dataclass(frozen=True)
class SweepTrial:
    """One training of one variant.

    Attributes:
        seed: train.seed; None: the profile's.
        share: Of the full number of steps.
    """

    variant: Variant
    seed: int | None = None
    share: float = 1.0

    @property
    def name(self) -> str:
        """What the run is called."""
        seed = [] if self.seed is None else [f"seed {self.seed}"]
        steps = [] if self.share == 1 else [f"1/{1 / self.share:.0f} of the steps"]
        return ", ".join([self.variant.label, *seed, *steps])

    def overrides(self, fixed: Sequence[str], train: TrainSettings) -> tuple[str, ...]:
        """Settings of the trial.

        Args:
            fixed: Overrides that all variants share.
            train: Settings of the variant at full length.
        """
        seed = () if self.seed is None else (f"train.seed={self.seed}",)
        return (*fixed, *self.variant.overrides, *seed, *_shortened(train, self.share))

    def request(self, profile: str, fixed: Sequence[str], train: TrainSettings) -> Request:
        """The run that trains and validates it."""
        overrides = (*self.overrides(fixed, train), *VALIDATION_ONLY)
        return Request(profile, overrides, Selection(until=LAST))


def rounds(variants: int, halving: bool) -> list[Round]:
    """One round of all variants; with halving, rounds of twice the steps for the better half."""
    halvings = min(MOST_HALVINGS, math.ceil(math.log2(variants))) if halving else 0
    return [Round(math.ceil(variants / 2**i), 2.0 ** (i - halvings)) for i in range(halvings + 1)]


def comparisons(planned: Sequence[Round]) -> int:
    """Pairs of variants that are compared, in all rounds."""
    return max(1, sum(math.comb(one.count, 2) for one in planned))


def seeds_of(train: TrainSettings, count: int) -> tuple[int | None, ...]:
    """The seeds of each variant, from the profile's on."""
    return (None,) if count == 1 else tuple(train.seed + i for i in range(count))


def check_options(fields: Sequence[str], seeds: int, halving: bool) -> None:
    """Report options that set a swept field.

    Raises:
        PipelineError: See above.
    """
    if halving and (taken := [name for name in fields if name in LENGTH]):
        raise PipelineError(
            f"--halving sets {', '.join(taken)}, which is also swept",
            "Sweep other fields, or leave out --halving.",
        )
    if seeds > 1 and "train.seed" in fields:
        raise PipelineError(
            f"--seeds {seeds} sets train.seed, which is also swept",
            "Leave out one of them.",
        )


def _shortened(train: TrainSettings, share: float) -> tuple[str, ...]:
    """Overrides of a training with a share of the steps: the same schedule, compressed."""
    if share == 1:
        return ()
    found = []
    warmup = round(train.warmup_steps * share)
    if isinstance(train.max_steps, int):
        steps = max(1, round(train.max_steps * share))
        warmup = min(warmup, steps - 1)
        found.append(f"train.max_steps={steps}")
    passes = train.epochs or (PASSES if train.max_steps == AUTO else None)
    if passes is not None:
        found.append(f"train.epochs={passes * share}")
    return (*found, f"train.warmup_steps={warmup}")
