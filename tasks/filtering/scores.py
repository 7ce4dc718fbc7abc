"""What the first pass found out, asked by the passes behind it.

Verdicts of all rows are held in memory, a few hundred bytes a row; n-grams stay in the shards, so
that a row's can be looked at without reading the others.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes
from tasks.core.rows.row_cache_shards import Shards
from tasks.core.rows.row_digests import Digests
from tasks.filtering.dedup.duplicates import Near, Numbers
from tasks.filtering.score_rows import VERDICTS

KEY = 8  # bytes of a band key


class Spool:
    """Verdicts of all rows, in their order.

    Attributes:
        row_ids: Their ids.
        digests: Of their contents.
    """

    def __init__(self, shards: Shards, row_ids: pa.Array, digests: Digests) -> None:
        """Take the located rows of some shards."""
        self.row_ids, self.digests = row_ids, digests
        self._shards = shards
        self._verdicts = shards.table([name for name in VERDICTS.names if name != "bands"])

    def batches(self, rows: int, columns: list[str]) -> Iterator[pa.Table]:
        """Verdicts, so many rows at a time."""
        verdicts = self._verdicts.select(columns)
        yield from (verdicts.slice(first, rows) for first in range(0, len(verdicts), rows))

    def passes(self) -> NDArray[np.bool_]:
        """Rows that no rule rejects."""
        lengths = pc.list_value_length(self._verdicts.column("reasons"))
        return np.array(pc.equal(lengths, 0), dtype=bool)

    def order(self) -> Numbers:
        """Rows by quality, best first: nothing redacted, then most n-grams, then id."""
        redacted = pc.not_equal(self._verdicts.column("redactions"), "")
        counts = self._shards.counts()
        table = pa.table({"redacted": redacted, "grams": counts, "row_id": self.row_ids})
        keys = [("redacted", "ascending"), ("grams", "descending"), ("row_id", "ascending")]
        return np.asarray(pc.sort_indices(table, keys)).astype(np.int64)

    def exact(self, texts: tuple[str, ...]) -> list[Numbers]:
        """For each kind of text a group number a row; rows of one group have the same text."""
        groups = []
        for text in texts:
            codes = self._verdicts.column(text).combine_chunks().dictionary_encode().indices
            groups.append(np.asarray(codes).astype(np.int64))
        return groups

    def near(self, least: float) -> Near | None:
        """What the search for near duplicates needs; None where it was not asked for."""
        bands = self._shards.table(["bands"]).column("bands").combine_chunks()
        total = len(bands)
        size = len(bands[0].as_py()) if total else 0
        if not size:
            return None
        content = np.frombuffer(bands.buffers()[2], dtype=np.uint8)
        first = bands.offset * size
        keys: Hashes = content[first : first + total * size].view(np.uint64)
        return Near(keys.reshape(total, size // KEY), self._shards.numbers, least)
