"""What the first pass found out, on disk between the two passes.

Verdicts are a Parquet file; band keys and n-grams are plain arrays of 8-byte numbers, so that a
row's n-grams can be looked at without reading the others: memory stays at a few hundred bytes a
row.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.tables import TableWriter, read_batches
from tasks.filtering.duplicates import Near, Numbers
from tasks.filtering.judging import VERDICTS, Judged
from tasks.filtering.words import Hashes


class Spool:
    """Written once with `add` and `close`, then read; `remove` deletes it."""

    def __init__(self, folder: Path) -> None:
        self._verdicts = folder / "verdicts.parquet"
        self._bands, self._grams = folder / "bands.u64", folder / "grams.u64"
        self._writer = TableWriter(self._verdicts, VERDICTS)
        self._files: list[IO[bytes]] = [self._bands.open("wb"), self._grams.open("wb")]
        self._counts: list[NDArray[np.int64]] = []
        self._passes: list[NDArray[np.bool_]] = []
        self.band_count = 0

    def add(self, judged: Judged) -> None:
        """Add a batch."""
        self._writer.add_table(judged.verdicts)
        for file, numbers in zip(self._files[:2], (judged.bands, judged.grams), strict=True):
            file.write(np.ascontiguousarray(numbers).data)
        self._counts.append(judged.counts)
        reasons = pc.list_value_length(judged.verdicts.column("reasons"))
        self._passes.append(np.asarray(pc.equal(reasons, 0)))
        self.band_count = judged.bands.shape[1]

    def close(self) -> None:
        """End writing; safe to call twice."""
        self._writer.close()
        for file in self._files:
            file.close()

    def remove(self) -> None:
        """Delete the files."""
        for path in (self._verdicts, self._bands, self._grams):
            path.unlink(missing_ok=True)

    def batches(self, rows: int, columns: list[str]) -> Iterator[pa.Table]:
        """Verdicts in the order in which they were added."""
        return read_batches(self._verdicts, rows, columns)

    def row_ids(self) -> pa.Array:
        """Ids of all rows."""
        return pq.read_table(self._verdicts, columns=["row_id"]).column(0).combine_chunks()

    def passes(self) -> NDArray[np.bool_]:
        """Rows that no rule rejects."""
        return np.concatenate([*self._passes, np.empty(0, dtype=bool)])

    def counts(self) -> Numbers:
        """Distinct n-grams of each row."""
        return np.concatenate([*self._counts, np.empty(0, dtype=np.int64)])

    def order(self, row_ids: pa.Array) -> Numbers:
        """Rows by quality, best first: nothing redacted, then most n-grams, then id."""
        redacted = pq.read_table(self._verdicts, columns=["redactions"]).column(0)
        table = pa.table(
            {"redacted": pc.not_equal(redacted, ""), "grams": self.counts(), "row_id": row_ids}
        )
        keys = [("redacted", "ascending"), ("grams", "descending"), ("row_id", "ascending")]
        return np.asarray(pc.sort_indices(table, keys)).astype(np.int64)

    def exact(self, texts: tuple[str, ...]) -> list[Numbers]:
        """For each kind of text a group number a row; rows of one group have the same text."""
        groups = []
        for text in texts:
            column = pq.read_table(self._verdicts, columns=[text]).column(0).combine_chunks()
            codes = column.dictionary_encode().indices
            groups.append(np.asarray(codes).astype(np.int64))
        return groups

    def near(self, least: float) -> Near | None:
        """What the search for near duplicates needs; None where it was not asked for."""
        if not self.band_count:
            return None
        keys: Hashes = np.fromfile(self._bands, dtype=np.uint64).reshape(-1, self.band_count)
        starts = np.concatenate([[0], np.cumsum(self.counts())]) * keys.itemsize
        # read, not mapped: mapped pages would count as memory of this process
        grams = self._grams.open("rb", buffering=0)
        self._files.append(grams)

        def grams_of(row: int) -> Hashes:
            start, end = int(starts[row]), int(starts[row + 1])
            return np.frombuffer(os.pread(grams.fileno(), end - start, start), dtype=np.uint64)

        return Near(keys, grams_of, least)
