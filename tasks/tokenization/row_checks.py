"""Which tokenized rows are trained on, and why the others are not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.errors import PipelineError

Ints = NDArray[np.int64]

DROPPED = pa.schema(
    [
        ("row_id", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Limits:
    """What a row must keep to.

    Attributes:
        max_tokens: End-of-text token included.
        min_characters_per_token: Of the completion.
    """

    max_tokens: int
    min_characters_per_token: float


@dataclass(frozen=True)
class Rows:
    """A split's tokenized rows.

    Attributes:
        split: Its name.
        first: Number of its first row among the rows of all splits.
        row_ids: All of its rows.
        tokens: Of each row, end-of-text token included.
        prompt_tokens: Of each row.
        kept: Places of the rows that are trained on.
        dropped: (place, reason, value, threshold) of the others.
    """

    split: str
    first: int
    row_ids: pa.Array
    tokens: Ints
    prompt_tokens: Ints
    kept: Ints
    dropped: tuple[tuple[int, str, float, float], ...]

    @property
    def counts(self) -> Counter[str]:
        """Dropped rows by reason."""
        return Counter(reason for _, reason, _, _ in self.dropped)

    def ids(self, places: Ints) -> list[str]:
        """Ids of some rows."""
        return self.row_ids.take(pa.array(places)).to_pylist()  # type: ignore[no-any-return]

    def ledger(self) -> pa.Table:
        """`DROPPED`."""
        places, *columns = zip(*self.dropped, strict=True) if self.dropped else ([], [], [], [])
        ids = self.row_ids.take(pa.array(places, pa.int64()))
        split = pa.array([self.split] * len(ids), pa.string())
        rest = [pa.array(c, f.type) for c, f in zip(columns, list(DROPPED)[2:], strict=True)]
        return pa.Table.from_arrays([ids, split, *rest], schema=DROPPED)


def choose(
    split: str, first: int, row_ids: pa.Array, tokens: Ints, encoded: pa.Table, limits: Limits
) -> Rows:
    """Look at each row of a split; the first reason against a row is the one that is told.

    Args:
        split: Its name.
        first: Number of its first row among those of all splits.
        row_ids: Of its rows.
        tokens: Of each row.
        encoded: `encode.ENCODED` of its rows.
        limits: What they must keep to.
    """
    prompt_tokens = encoded.column("prompt_tokens").to_numpy().astype(np.int64)
    completion_tokens = tokens - prompt_tokens - 1
    characters = encoded.column("completion_characters").to_numpy()
    density = characters / np.maximum(1, completion_tokens)
    exact = np.array(encoded.column("exact"), dtype=bool)
    checks: Sequence[tuple[str, NDArray[np.bool_], Any, float]] = (
        ("inexact", ~exact, np.zeros(len(tokens)), 0.0),
        ("empty_completion", completion_tokens == 0, completion_tokens, 1.0),
        ("too_long", tokens > limits.max_tokens, tokens, limits.max_tokens),
        (
            "characters_per_token",
            density < limits.min_characters_per_token,
            density,
            limits.min_characters_per_token,
        ),
    )
    left = np.ones(len(tokens), dtype=bool)
    dropped = []
    for reason, fails, values, threshold in checks:
        for place in np.flatnonzero(left & fails).tolist():
            dropped.append((place, reason, float(values[place]), float(threshold)))
        left &= ~fails
    kept = np.flatnonzero(left)
    return Rows(split, first, row_ids, tokens, prompt_tokens, kept, tuple(sorted(dropped)))


def check_not_empty(rows: Rows, max_tokens: int) -> None:
    """Refuse a split that nothing is left of.

    Raises:
        PipelineError: All its rows were dropped.
    """
    if not len(rows.kept):
        reasons = ", ".join(f"{number:,} {why}" for why, number in sorted(rows.counts.items()))
        lengths = rows.tokens.tolist() or [0]
        raise PipelineError(
            f"{rows.split}: none of {len(rows.tokens):,} rows is left "
            f"({reasons or 'it came empty'}); they have {min(lengths):,} to {max(lengths):,} "
            f"tokens, max_tokens is {max_tokens:,}",
            "Raise tokenize.max_tokens (and tokenize.window_tokens), or filter for shorter rows.",
        )
