"""Results of the first pass, for deduplication and the second pass.

Of all rows, only what single numbers say is in memory. The scores are a table in the order of the
rows, which is written to the stage's scratch folder if it is large; band keys are an array of one
line per band, which is searched band by band; n-grams stay in the row cache, so that those of one
row can be read without the others.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes
from tasks.core.rows.disk_arrays import DiskArrays, group_numbers
from tasks.core.rows.parquet import TableWriter, read_batches
from tasks.core.rows.row_cache_shards import BLOCK_ROWS, Shards
from tasks.core.rows.row_digests import Digests
from tasks.filtering.dedup.common_ngrams import common_ngrams
from tasks.filtering.dedup.exact_dedup import Numbers
from tasks.filtering.dedup.minhash import MinHash, band_keys
from tasks.filtering.dedup.near_dedup import NOTHING, Grams, NearCandidates
from tasks.filtering.score_rows import SCORES

KEY = 8  # bytes of a band key
KEPT = [name for name in SCORES.names if name != "bands"]


class RowScores:
    """`SCORES` of all rows, in their order.

    Attributes:
        row_ids: Ids of the rows.
        digests: Digests of their contents.
    """

    def __init__(self, shards: Shards, row_ids: pa.Array, digests: Digests, scratch: Path) -> None:
        """Read the scores of rows that the shards have located; large tables go to `scratch`."""
        self.row_ids, self.digests = row_ids, digests
        self._shards, self._arrays = shards, DiskArrays(scratch)
        total = len(row_ids)
        self._table: pa.Table | None = None
        self._path = scratch / "scores.parquet"
        self._bands: Hashes | None = None
        self._passes = np.empty(total, dtype=bool)
        self._redacted = np.empty(total, dtype=bool)
        self._contents: Counter[str] = Counter()
        blocks = shards.blocks(SCORES.names, scratch / "blocks")
        if total <= BLOCK_ROWS:
            (block,) = blocks
            self._take(block, 0)
            self._table = block.select(KEPT)
            return
        start = 0
        scratch.mkdir(parents=True, exist_ok=True)
        with TableWriter(self._path, pa.schema([SCORES.field(name) for name in KEPT])) as writer:
            for block in blocks:
                self._take(block, start)
                writer.add_table(block.select(KEPT))
                start += len(block)

    def _take(self, block: pa.Table, start: int) -> None:
        """Note the numbers of some rows, which begin at row `start`."""
        rows = slice(start, start + len(block))
        self._passes[rows] = pc.equal(pc.list_value_length(block.column("reasons")), 0)
        self._redacted[rows] = pc.not_equal(block.column("redactions"), "")
        for entry in block.column("content").value_counts().to_pylist():
            self._contents[entry["values"]] += entry["counts"]
        bands = block.column("bands").combine_chunks()
        size = len(bands[0].as_py()) if len(bands) else 0
        # all keys have the same size, so the column's buffer is the matrix of keys
        content = np.frombuffer(bands.buffers()[2] if size else b"", dtype=np.uint8)
        first = bands.offset * size
        keys: Hashes = content[first : first + len(bands) * size].view(np.uint64)
        if self._bands is None:
            self._bands = self._arrays.zeros((size // KEY, len(self.row_ids)), np.uint64)
        self._bands[:, rows] = keys.reshape(len(bands), size // KEY).T

    def _read(self, names: list[str]) -> pa.Table:
        """Columns of the scores of all rows."""
        if self._table is not None:
            return self._table.select(names)
        return pq.read_table(self._path, columns=names)

    def batches(self, rows: int, columns: list[str]) -> Iterator[pa.Table]:
        """The scores, `rows` at a time."""
        if self._table is None:
            yield from read_batches(self._path, rows, columns)
            return
        table = self._table.select(columns)
        yield from (table.slice(first, rows) for first in range(0, len(table), rows))

    def contents(self) -> dict[str, int]:
        """Rows by the class of their output, most first."""
        named = sorted((-count, name) for name, count in self._contents.items())
        return {name: -count for count, name in named}

    def passes(self) -> NDArray[np.bool_]:
        """Rows that no rule rejects."""
        return self._passes.copy()

    def order(self) -> Numbers:
        """Rows by quality, best first: nothing redacted, then most n-grams, then id."""
        counts = self._shards.counts()
        table = pa.table({"redacted": self._redacted, "grams": counts, "row_id": self.row_ids})
        keys = [("redacted", "ascending"), ("grams", "descending"), ("row_id", "ascending")]
        return np.asarray(pc.sort_indices(table, keys)).astype(np.int64)

    def exact_groups(self, text: str) -> Numbers:
        """A group number per row for "question" or "row"; rows of one group have the same text, and
        a blank text is alone in its group."""
        column = self._read([text]).column(text)
        blank = np.flatnonzero(column.is_null())
        parts = [np.empty((0, 2), np.uint64), *map(_halves, column.chunks)]
        codes = group_numbers(np.concatenate(parts))
        codes[blank] = codes.max(initial=0) + 1 + np.arange(len(blank))
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
        questions = self._read(["question_grams"]).column("question_grams").to_numpy()
        numbers = self._shards.numbers

        def grams(row: int) -> Grams:
            both, asked = numbers(row), questions[row]
            return both[:asked], both[asked:]

        assert self._bands is not None
        keys = self._bands.T
        if minhash is None:
            return NearCandidates(keys, grams, jaccard, NOTHING, lambda _: NOTHING)
        common = common_ngrams(sources, self.digests[:, 0], self._shards.numbers_of)
        keys_of = partial(band_keys, settings=minhash)
        return NearCandidates(keys, grams, jaccard, common, keys_of, self._arrays)


def _halves(keys: pa.FixedSizeBinaryArray) -> NDArray[np.uint64]:
    """Keys of 16 bytes as two numbers each."""
    halves = np.frombuffer(keys.buffers()[1] or b"", dtype=np.uint64).reshape(-1, 2)
    return halves[keys.offset : keys.offset + len(keys)]
