"""Scores of variants: validation losses and their differences from the best, with intervals.

The best variant is chosen by the same losses that are compared, so intervals are corrected for all
pairs of variants (Bonferroni). They are those of the gate
(`tasks.evaluation.gate.cluster_inference`): paired, with a project as one observation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from flows.sweep.grid import Variant
from tasks.core.rows.split_unit import FEWEST_CLUSTERS
from tasks.evaluation.gate.cluster_inference import ratio_difference

RESAMPLES = 20_000  # the interval of one pair among many is far out in the tail


@dataclass(frozen=True)
class RowLosses:
    """Losses of the content of each row of a row set, from rows.parquet of an evaluation.

    Attributes:
        rows: Ids.
        clusters: Project of each row.
        tokens: Of content.
        base: Summed loss of the base.
        tuned: Summed loss of the tuned model.
        correct: Tokens that the tuned model predicts.
    """

    rows: tuple[str, ...]
    clusters: tuple[str, ...]
    tokens: tuple[int, ...]
    base: tuple[float, ...]
    tuned: tuple[float, ...]
    correct: tuple[int, ...]

    @classmethod
    def read(cls, artifact: Path, row_set: str) -> "RowLosses":
        """Read the artifact of an evaluation."""
        names = ["row_id", "cluster", "tokens", "base_loss_sum", "tuned_loss_sum", "tuned_correct"]
        table = pq.read_table(
            artifact / "rows.parquet", columns=names, filters=[("row_set", "=", row_set)]
        ).sort_by("row_id")
        return cls(*(tuple(table[name].to_pylist()) for name in names))

    @property
    def loss(self) -> float:
        """Of the tuned model, in nats per token."""
        return sum(self.tuned) / sum(self.tokens)

    @property
    def base_loss(self) -> float:
        """Of the base."""
        return sum(self.base) / sum(self.tokens)

    @property
    def accuracy(self) -> float:
        """Token accuracy of the tuned model."""
        return sum(self.correct) / sum(self.tokens)


@dataclass(frozen=True)
class Score:
    """A variant compared with the best of its round.

    Attributes:
        loss: Mean over its seeds.
        seeds: Loss of each seed.
        difference: From the best; 0 for the best itself.
        low: Lower end of the interval; None where there is none.
        high: Upper end.
    """

    loss: float
    accuracy: float
    seeds: tuple[float, ...]
    difference: float = 0.0
    low: float | None = None
    high: float | None = None

    @property
    def is_worse(self) -> bool:
        """Whether the variant is shown to be worse than the best."""
        return self.low is not None and self.low > 0


def mean_loss(seeds: Sequence[RowLosses]) -> float:
    """Loss of a variant: the mean over its seeds."""
    return sum(one.loss for one in seeds) / len(seeds)


def scores(
    variants: Mapping[Variant, Sequence[RowLosses]], comparisons: int, seed: int = 0
) -> dict[Variant, Score]:
    """Scores of the variants of one round, the best first.

    Args:
        variants: Losses of each seed.
        comparisons: Pairs of variants in all rounds.
        seed: Of the draws.
    """
    if not variants:
        return {}
    order = sorted(variants, key=lambda variant: mean_loss(variants[variant]))
    best = variants[order[0]]
    found = {}
    for variant in order:
        own = variants[variant]
        score = Score(
            loss=mean_loss(own),
            accuracy=sum(one.accuracy for one in own) / len(own),
            seeds=tuple(one.loss for one in own),
        )
        found[variant] = (
            score if variant == order[0] else _compared(score, best, own, comparisons, seed)
        )
    return found


def _compared(
    score: Score, best: Sequence[RowLosses], own: Sequence[RowLosses], comparisons: int, seed: int
) -> Score:
    """The score with its difference from the best."""
    pairs = list(zip(best, own, strict=True))
    difference = ratio_difference(
        [cluster for one in own for cluster in one.clusters],
        [loss for one, _ in pairs for loss in one.tuned],
        [loss for _, one in pairs for loss in one.tuned],
        [float(tokens) for one in own for tokens in one.tokens],
        resamples=RESAMPLES,
        seed=seed,
        comparisons=comparisons,
    )
    known = difference.units >= FEWEST_CLUSTERS
    return Score(
        score.loss,
        score.accuracy,
        score.seeds,
        difference.value,
        difference.low if known else None,
        difference.high if known else None,
    )
