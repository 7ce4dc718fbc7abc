"""Row checks: which tokenized rows are trained on, and the reason against each of the others.

Rows are dropped whole and never cut, because a function without its end teaches wrong code.
"""

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
class RowLimits:
    """Limits of a row.

    Attributes:
        max_tokens: Longest row, end-of-text token included.
        min_characters_per_token: Least mean length of the completion's tokens.
    """

    max_tokens: int
    min_characters_per_token: float


@dataclass(frozen=True)
class CheckedRows:
    """The tokenized rows of a split, after the checks.

    Attributes:
        split: Name of the split.
        first: Index of its first row among the rows of all splits.
        row_ids: Ids of all its rows.
        tokens: Tokens of each row, end-of-text token included.
        prompt_tokens: Tokens of each prompt.
        kept: Indexes of the rows that are trained on.
        dropped: (index, reason, value, threshold) of the other rows.
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

    def dropped_table(self) -> pa.Table:
        """The dropped rows in the schema `DROPPED`."""
        indexes, *columns = zip(*self.dropped, strict=True) if self.dropped else ([], [], [], [])
        ids = self.row_ids.take(pa.array(indexes, pa.int64()))
        split = pa.array([self.split] * len(ids), pa.string())
        rest = [pa.array(c, f.type) for c, f in zip(columns, list(DROPPED)[2:], strict=True)]
        return pa.Table.from_arrays([ids, split, *rest], schema=DROPPED)


def check_rows(
    split: str, first: int, row_ids: pa.Array, tokens: Ints, encoded: pa.Table, limits: RowLimits
) -> CheckedRows:
    """Check each row of a split; a row that fails several checks is listed with the first.

    Args:
        split: Name of the split.
        first: Index of its first row among the rows of all splits.
        row_ids: Ids of its rows.
        tokens: Tokens of each row.
        encoded: Its rows in the schema `encode.ENCODED`.
        limits: Limits of a row.
    """
    prompt_tokens = encoded.column("prompt_tokens").to_numpy().astype(np.int64)
    completion_tokens = tokens - prompt_tokens - 1  # without EOS
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
        for index in np.flatnonzero(left & fails).tolist():
            dropped.append((index, reason, float(values[index]), float(threshold)))
        left &= ~fails
    kept = np.flatnonzero(left)
    return CheckedRows(split, first, row_ids, tokens, prompt_tokens, kept, tuple(sorted(dropped)))


def check_not_empty(rows: CheckedRows, max_tokens: int) -> None:
    """Refuse a split without rows.

    Raises:
        PipelineError: All its rows were dropped, or it was empty before.
    """
    if not len(rows.kept):
        reasons = ", ".join(f"{number:,} {why}" for why, number in sorted(rows.counts.items()))
        lengths = rows.tokens.tolist() or [0]
        raise PipelineError(
            f"{rows.split}: none of {len(rows.tokens):,} rows is left "
            f"({reasons or 'the split was empty'}); they have {min(lengths):,} to "
            f"{max(lengths):,} tokens, max_tokens is {max_tokens:,}",
            "Raise tokenize.max_tokens (and tokenize.window_tokens), or filter for shorter rows.",
        )
