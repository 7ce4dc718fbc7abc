"""Row checks: which tokenized rows are trained on, and the reason against each of the others.

Rows are dropped whole and never cut, because a function without its end teaches wrong code.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.rows.row_schema import PART
from tasks.tokenization.samples import Ints, Samples, Spans, split_samples

REFUSED, INEXACT, MASKED = "refused_by_chat_template", "inexact", "all_masked"
EMPTY, TOO_LONG, DENSITY = "empty_completion", "too_long", "characters_per_token"
AT_ONCE = 16_384  # ids that are texts of Python
MEASURED_TOKENS = 32  # fewer tell nothing: a good answer can be one digit or a regular expression

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
        encoded: Its rows in the schema `encode.ENCODED`.
        kept: Indexes of the rows that are trained on.
        spans: Their trained spans.
        samples: What is trained on.
        dropped: (index, reason, value, threshold) of the other rows.
    """

    split: str
    first: int
    row_ids: pa.Array
    tokens: Ints
    encoded: pa.Table
    kept: Ints
    spans: Spans
    samples: Samples
    dropped: tuple[tuple[int, str, float, float], ...]

    @property
    def counts(self) -> Counter[str]:
        """Dropped rows by reason."""
        return Counter(reason for _, reason, _, _ in self.dropped)

    def ids(self, which: Ints) -> list[str]:
        """The ids of some samples: that of the row, and for further parts of a text its number."""
        own = self.samples.rows[which]
        parts = which - np.searchsorted(self.samples.rows, own, side="left")
        return [
            f"{row}{PART}{part + 1}" if part else row
            for row, part in zip(
                self.row_ids.take(pa.array(own)).to_pylist(), parts.tolist(), strict=True
            )
        ]

    def all_ids(self) -> Iterator[str]:
        """The ids of all samples, in order."""
        for first in range(0, len(self.samples.rows), AT_ONCE):
            yield from self.ids(np.arange(first, min(first + AT_ONCE, len(self.samples.rows))))

    def is_single(self) -> NDArray[np.bool_]:
        """Whether each sample is trained from its first trained token to its end."""
        rows = self.samples.rows
        is_one = self.spans.counts[rows] == 1
        return np.asarray(is_one & (self.spans.ends[rows] == self.tokens[rows]))

    def going_on(self) -> int:
        """Samples that need not end in a trained end token."""
        is_last = self.samples.stops == self.tokens[self.samples.rows]
        closed = np.array(self.encoded.column("closed"), dtype=bool)[self.samples.rows]
        return int(np.count_nonzero(~(is_last & closed)))

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
    text_tokens = encoded.column("text_tokens").to_numpy().astype(np.int64)
    density = encoded.column("text_bytes").to_numpy() / np.maximum(1, text_tokens)
    none = np.zeros(len(tokens))
    can_split = _flags(encoded, "can_split")
    spans = Spans.of(encoded)
    # a row's first token has no label
    is_masked = (spans.counts == 0) | ((spans.ends <= 1) & (text_tokens > 0))
    checks: Sequence[tuple[str, NDArray[np.bool_], Any, float]] = (
        (REFUSED, np.array(pc.not_equal(encoded.column("problem"), ""), dtype=bool), none, 0.0),
        (INEXACT, ~_flags(encoded, "exact"), none, 0.0),
        (MASKED, is_masked, none, 1.0),
        (EMPTY, text_tokens == 0, text_tokens, 1.0),
        (TOO_LONG, (tokens > limits.max_tokens) & ~can_split, tokens, limits.max_tokens),
        (
            DENSITY,
            (density < limits.min_characters_per_token) & (text_tokens >= MEASURED_TOKENS),
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
    samples = split_samples(kept, tokens, limits.max_tokens).with_labels(spans)
    return CheckedRows(
        split, first, row_ids, tokens, encoded, kept, spans, samples, tuple(sorted(dropped))
    )


def _flags(encoded: pa.Table, name: str) -> NDArray[np.bool_]:
    return np.array(encoded.column(name), dtype=bool)
