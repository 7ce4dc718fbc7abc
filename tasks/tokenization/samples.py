"""Samples: what is trained on of each row, and the spans of its tokens that are trained.

A row is one sample. Plain text that is longer than a sample may be becomes several.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """The trained spans of rows.

    Attributes:
        values: Start and end of each span, of all rows.
        offsets: Where those of each row begin in `values`, and the end.
    """

    values: Ints
    offsets: Ints

    @classmethod
    def of(cls, encoded: pa.Table) -> "Spans":
        """The spans of rows in the schema `encode.ENCODED`."""
        column = encoded.column("spans").combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no rows
            return cls(np.empty(0, np.int64), np.zeros(1, np.int64))
        offsets = column.offsets.to_numpy().astype(np.int64)
        values = column.values.to_numpy().astype(np.int64)
        return cls(values[offsets[0] : offsets[-1]], offsets - offsets[0])

    @property
    def starts(self) -> Ints:
        """Start of the first span of each row; 0 without one."""
        return self._at(self.offsets[:-1])

    @property
    def ends(self) -> Ints:
        """End of the last span of each row; 0 without one."""
        return self._at(self.offsets[1:] - 1)

    @property
    def counts(self) -> Ints:
        """Spans of each row."""
        return np.diff(self.offsets) // 2

    def cut(self, samples: "Samples") -> "Spans":
        """The spans of each sample, counted from its first token."""
        counts = self.offsets[samples.rows + 1] - self.offsets[samples.rows]
        firsts = self.offsets[samples.rows] - (np.cumsum(counts) - counts)
        sample = np.repeat(np.arange(len(counts)), counts)
        own = self.values[np.arange(len(sample)) + firsts[sample]]
        own = np.clip(own, samples.starts[sample], samples.stops[sample]) - samples.starts[sample]
        pairs = own.reshape(-1, 2)
        is_left = pairs[:, 1] > pairs[:, 0]
        left = 2 * np.bincount(sample[::2][is_left], minlength=len(counts))
        return Spans(pairs[is_left].ravel(), np.concatenate([[0], np.cumsum(left)]))

    def _at(self, places: Ints) -> Ints:
        if not len(self.values):
            return np.zeros(len(places), dtype=np.int64)
        has_any = np.diff(self.offsets) > 0
        return np.where(has_any, self.values[np.minimum(places, len(self.values) - 1)], 0)


@dataclass(frozen=True)
class Samples:
    """The samples of a split: its kept rows, and the parts of plain texts that are too long.

    Attributes:
        rows: Index of each sample's row.
        starts: Index of its first token among those of its row.
        stops: Index after its last token.
    """

    rows: Ints
    starts: Ints
    stops: Ints

    @property
    def tokens(self) -> Ints:
        """Tokens of each sample."""
        return self.stops - self.starts

    def take(self, which: Ints) -> "Samples":
        """Some of the samples."""
        return Samples(self.rows[which], self.starts[which], self.stops[which])

    def places(self) -> list[tuple[int, int, int]]:
        """(row, start, stop) of each sample."""
        columns = (self.rows.tolist(), self.starts.tolist(), self.stops.tolist())
        return list(zip(*columns, strict=True))

    def with_labels(self, spans: Spans) -> "Samples":
        """The samples with a label: a part of a long prompt has none."""
        is_part = np.isin(self.rows, self.rows[1:][np.diff(self.rows) == 0])
        kept = ~is_part | (spans.cut(self).ends > 1)
        return self.take(np.flatnonzero(kept))


def split_samples(kept: Ints, tokens: Ints, max_tokens: int) -> Samples:
    """Samples of at most `max_tokens`, about equally long in each row.

    A part begins with the last token of the part before it: the first token of a sample has no
    label, so that every token but the first of the text is trained once.
    """
    lengths = tokens[kept]
    counts = np.maximum(1, -(-(lengths - 1) // (max_tokens - 1)))
    rows, totals = np.repeat(kept, counts), np.repeat(lengths - 1, counts)
    part = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    each = np.repeat(counts, counts)
    return Samples(rows, part * totals // each, (part + 1) * totals // each + 1)
