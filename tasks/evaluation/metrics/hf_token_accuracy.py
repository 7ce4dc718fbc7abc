"""Token accuracy as an `evaluate.Metric`, defined here because `evaluate.load` needs the hub.

The token at position i + 1 is predicted at position i, so predictions and labels are compared one
position apart; labels of -100 are ignored. Batches are counted and not stored, so memory does not
grow with the data. Kept apart from `token_accuracy`, as importing `evaluate` takes seconds.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value

from tasks.core.models.packed_dataset import IGNORED
from tasks.evaluation.results import RowResult


class TokenAccuracy(evaluate.Metric):  # type: ignore[misc]  # the library has no types
    """Share of labelled tokens whose prediction was the likeliest token."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache_dir=str(cache), keep_in_memory=True, seed=0)
        self.correct = self.tokens = 0

    def _info(self) -> Any:
        ids = Sequence(Value("int64"))
        return evaluate.MetricInfo(
            description="Share of labelled tokens predicted right, teacher-forced and shifted.",
            citation="",
            inputs_description="predictions: likeliest token after each position; "
            f"references: labels, unshifted, {IGNORED} where nothing counts.",
            features=Features({"predictions": ids, "references": ids}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **_: Any) -> None:
        """Count a batch of rows, which may differ in length.

        Args:
            predictions: int[rows, n], the likeliest next token at each position.
            references: int[rows, n], unshifted labels.
        """
        for predicted, labels in zip(predictions, references, strict=True):
            wanted = np.asarray(labels)[1:]
            counted = wanted != IGNORED
            self.correct += int((np.asarray(predicted)[:-1][counted] == wanted[counted]).sum())
            self.tokens += int(counted.sum())

    def compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> Any:
        """Accuracy of all batches so far, including the given one; then starts again from zero."""
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        accuracy = self.correct / self.tokens if self.tokens else float("nan")
        result = {"token_accuracy": accuracy, "correct": self.correct, "tokens": self.tokens}
        self.correct = self.tokens = 0
        return result

    def _compute(self, predictions: Any, references: Any) -> Any:
        """The library's hook, which its abstract class demands."""
        return self.compute(predictions=predictions, references=references)


def of_rows(rows: Iterable[RowResult], cache: Path) -> tuple[float, float]:
    """Token accuracy of base and tuned model over rows that were counted beside the loss."""
    base, tuned = TokenAccuracy(cache), TokenAccuracy(cache)
    for row in rows:
        for metric, correct in ((base, row.base_correct), (tuned, row.tuned_correct)):
            metric.correct += correct
            metric.tokens += row.tokens
    return base.compute()["token_accuracy"], tuned.compute()["token_accuracy"]
