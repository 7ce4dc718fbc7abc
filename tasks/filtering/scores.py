"""Results of the first pass, for deduplication and the second pass.

The scores of all rows are held in memory, a few hundred bytes per row; n-grams stay in the row
cache, so that those of one row can be read without the others.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes
from tasks.core.rows.row_cache_shards import Shards
from tasks.core.rows.row_digests import Digests
from tasks.filtering.dedup.common_ngrams import common_ngrams
from tasks.filtering.dedup.exact_dedup import NO_TWIN, Numbers
from tasks.filtering.dedup.minhash import MinHash, band_keys
from tasks.filtering.dedup.near_dedup import NOTHING, Grams, NearCandidates
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

    def contents(self) -> dict[str, int]:
        """Rows by the class of their output, most first."""
        found = self._table.column("content").value_counts().to_pylist()
        named = sorted((-entry["counts"], entry["values"]) for entry in found)
        return {name: -count for count, name in named}

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
        """A group number per row for "question" or "row"; rows of one group have the same text, and
        a blank text is alone in its group."""
        encoded = self._table.column(text).combine_chunks().dictionary_encode()
        codes = np.asarray(pc.fill_null(encoded.indices, NO_TWIN)).astype(np.int64)
        blank = np.flatnonzero(codes == NO_TWIN)
        codes[blank] = len(encoded.dictionary) + np.arange(len(blank))
        return codes

    def near_candidates(
        self, jaccard: float, minhash: MinHash | None, sources: Numbers
    ) -> NearCandidates:
        """Input of the search for near duplicates.

        Args:
            jaccard: Similarity from which two rows are duplicates.
            minhash: Settings of the signatures; None: near duplicates are not searched.
            sources: A number for the source of each row.
        """
        bands = self._shards.table(["bands"]).column("bands").combine_chunks()
        total = len(bands)
        size = len(bands[0].as_py()) if total else 0
        # all keys have the same size, so the column's buffer is the matrix of keys
        content = np.frombuffer(bands.buffers()[2] if size else b"", dtype=np.uint8)
        first = bands.offset * size
        keys: Hashes = content[first : first + total * size].view(np.uint64)
        questions = self._table.column("question_grams").to_numpy()
        numbers = self._shards.numbers

        def grams(row: int) -> Grams:
            both, asked = numbers(row), questions[row]
            return both[:asked], both[asked:]

        shape = (total, size // KEY)
        if minhash is None:
            return NearCandidates(keys.reshape(shape), grams, jaccard, NOTHING, lambda _: NOTHING)
        common = common_ngrams(sources, self.digests[:, 0], numbers)
        keys_of = partial(band_keys, settings=minhash)
        return NearCandidates(keys.reshape(shape), grams, jaccard, common, keys_of)
