"""Results of a sweep so far: the result of each trial, and the ranking of the variants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.sweep import trials
from flows.sweep.grid import Grid, Variant
from flows.sweep.scores import RowLosses, Score, mean_loss, scores
from flows.sweep.trials import Round, SweepTrial
from tasks.core.cache.manifest import Manifest

VALIDATION = "validation"  # row set of a trial's evaluation


@dataclass(frozen=True)
class Result:
    """Result of a trial.

    Attributes:
        train: Manifest of its training.
        evaluate: Manifest of its evaluation.
        folders: Folder of each artifact, by stage.
        losses: Of the validation rows.
    """

    train: Manifest
    evaluate: Manifest
    folders: Mapping[str, Path]
    losses: RowLosses

    @classmethod
    def read(cls, made: Mapping[str, Manifest], folders: Mapping[str, Path]) -> "Result":
        """The result of a finished run."""
        losses = RowLosses.read(folders["evaluate"], VALIDATION)
        return cls(made["train"], made["evaluate"], folders, losses)

    @property
    def seconds(self) -> float:
        """Time of training and validation, whichever run it was."""
        return self.train.seconds + self.evaluate.seconds


@dataclass
class SweepResults:
    """The state of a sweep.

    Attributes:
        seeds: Of each variant; one None: the profile's.
        found: Results of the trials.
        failed: Why a trial cannot finish: problem in one line.
        winner: The run of the best variant on the test split: folder of its evaluation.
    """

    grid: Grid
    planned: list[Round]
    seeds: tuple[int | None, ...]
    found: dict[SweepTrial, Result] = field(default_factory=dict)
    failed: dict[SweepTrial, str] = field(default_factory=dict)
    winner: Path | None = None

    def trials(self, variant: Variant, share: float) -> list[SweepTrial]:
        """The trainings of a variant in the round with this share of the steps."""
        return [SweepTrial(variant, seed, share) for seed in self.seeds]

    def of(self, variant: Variant, share: float) -> list[Result] | None:
        """Results of all seeds of a variant; None while one is missing."""
        found = [self.found.get(trial) for trial in self.trials(variant, share)]
        return [result for result in found if result] if all(found) else None

    def losses(self, share: float) -> dict[tuple[int, ...], float]:
        """Loss of each variant with results in a round, by place."""
        return {v.place: mean_loss(rows) for v, rows in self._losses(share).items()}

    def ranked(self, share: float) -> list[Variant]:
        """Variants with results in a round, the best first."""
        losses = self._losses(share)
        return sorted(losses, key=lambda variant: mean_loss(losses[variant]))

    @property
    def best(self) -> Variant:
        """The best variant of the last round, which has results."""
        return self.ranked(self.planned[-1].share)[0]

    def scores(self, share: float) -> dict[Variant, Score]:
        """Scores of a round, the best first."""
        return scores(self._losses(share), trials.comparisons(self.planned))

    def _losses(self, share: float) -> dict[Variant, list[RowLosses]]:
        return {
            variant: [result.losses for result in results]
            for variant in self.grid.variants
            if (results := self.of(variant, share))
        }
