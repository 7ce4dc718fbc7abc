"""Results of the first pass, for deduplication and the second pass.

The scores of all rows are held in memory, a few hundred bytes per row; n-grams stay in the row
cache, so that those of one row can be read without the others.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes
from tasks.core.rows.row_cache_shards import Shards
from tasks.core.rows.row_digests import Digests
from tasks.filtering.dedup.exact_dedup import Numbers
from tasks.filtering.dedup.near_dedup import NearCandidates
from tasks.filtering.score_rows import SCORES

KEY = 8  # bytes of a band key


class RowScores:
    """`SCORES` of all rows, in their order.

    Attributes:
        row_ids: Ids of the rows.
        digests: Digests of their contents.
    """

    def __init__(self, shards: Shards, row_ids: pa.Array, digests: Digests) -> None:
        """Read the scores of rows that the shards have located."""
        self.row_ids, self.digests = row_ids, digests
        self._shards = shards
        self._table = shards.table([name for name in SCORES.names if name != "bands"])

    def batches(self, rows: int, columns: list[str]) -> Iterator[pa.Table]:
        """The scores, `rows` at a time."""
        table = self._table.select(columns)
        yield from (table.slice(first, rows) for first in range(0, len(table), rows))

    def passes(self) -> NDArray[np.bool_]:
        """Rows that no rule rejects."""
        lengths = pc.list_value_length(self._table.column("reasons"))
        return np.array(pc.equal(lengths, 0), dtype=bool)

    def order(self) -> Numbers:
        """Rows by quality, best first: nothing redacted, then most n-grams, then id."""
        redacted = pc.not_equal(self._table.column("redactions"), "")
        counts = self._shards.counts()
        table = pa.table({"redacted": redacted, "grams": counts, "row_id": self.row_ids})
        keys = [("redacted", "ascending"), ("grams", "descending"), ("row_id", "ascending")]
        return np.asarray(pc.sort_indices(table, keys)).astype(np.int64)

    def exact_groups(self, text: str) -> Numbers:
        """A group number per row for one kind of text; rows of one group have the same text."""
        codes = self._table.column(text).combine_chunks().dictionary_encode().indices
        return np.asarray(codes).astype(np.int64)

    def near_candidates(self, jaccard: float) -> NearCandidates:
        """Input of the search for near duplicates."""
        bands = self._shards.table(["bands"]).column("bands").combine_chunks()
        total = len(bands)
        size = len(bands[0].as_py()) if total else 0
        # all keys have the same size, so the column's buffer is the matrix of keys
        content = np.frombuffer(bands.buffers()[2] if size else b"", dtype=np.uint8)
        first = bands.offset * size
        keys: Hashes = content[first : first + total * size].view(np.uint64)
        return NearCandidates(keys.reshape(total, size // KEY), self._shards.numbers, jaccard)
