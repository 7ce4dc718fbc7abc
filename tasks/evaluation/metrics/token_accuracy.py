"""Token accuracy as an `evaluate.Metric`, defined here because `evaluate.load` asks the hub.

The token at position i + 1 is predicted at position i, so predictions and labels are compared one
apart; labels of -100 count for nothing. Batches are counted as they come and not kept, so that
memory does not grow with the data.
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
    """Share of labelled tokens that were the likeliest by what stands before them."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache_dir=str(cache), keep_in_memory=True, seed=0)
        self.correct = 0
        self.tokens = 0

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
        """Count a batch.

        Args:
            predictions: int[rows, n], the likeliest next token at each position.
            references: int[rows, n], unshifted labels.
        """
        correct, tokens = count(predictions, references)
        self.add_counts(correct, tokens)

    def add_counts(self, correct: int, tokens: int) -> None:
        """Add what was counted elsewhere, such as on the GPU beside the loss."""
        self.correct += correct
        self.tokens += tokens

    def compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> Any:
        """Accuracy of all batches so far, and of the one given; starts anew after it."""
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        result = self._result(self.correct, self.tokens)
        self.correct = self.tokens = 0
        return result

    def _compute(self, predictions: Any, references: Any) -> Any:
        return self._result(*count(predictions, references))

    @staticmethod
    def _result(correct: int, tokens: int) -> dict[str, float]:
        accuracy = correct / tokens if tokens else float("nan")
        return {"token_accuracy": accuracy, "correct": correct, "tokens": tokens}


def count(predictions: Any, references: Any) -> tuple[int, int]:
    """Right and labelled tokens of rows that may differ in length."""
    correct = tokens = 0
    for predicted, labels in zip(predictions, references, strict=True):
        wanted = np.asarray(labels)[1:]
        counted = wanted != IGNORED
        correct += int((np.asarray(predicted)[:-1][counted] == wanted[counted]).sum())
        tokens += int(counted.sum())
    return correct, tokens


def of_rows(rows: Iterable[RowResult], cache: Path) -> tuple[float, float]:
    """Token accuracy of base and tuned model over rows whose right tokens were counted already."""
    base, tuned = TokenAccuracy(cache), TokenAccuracy(cache)
    for row in rows:
        base.add_counts(row.base_correct, row.tokens)
        tuned.add_counts(row.tuned_correct, row.tokens)
    return base.compute()["token_accuracy"], tuned.compute()["token_accuracy"]
