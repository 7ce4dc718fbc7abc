"""Content-addressed shards of the row cache: digests of rows -> values of a function.

A row is identified by the digest of its content, and the first bits of the digest select one of 16
shards. So a new, edited or removed row changes one shard, wherever the row is in the input, and
rows are found again when the input is reordered or split into other files. A folder of shards
belongs to one function with all its arguments and code, so its values are never out of date. Rows
that are no longer in the input are removed once they are most of a shard.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.rows.row_cache_file import (
    SEGMENT_BYTES,
    Counts,
    Segment,
    ShardFile,
    Values,
    concatenated,
)
from tasks.core.rows.row_digests import DigestIndex, Digests

BITS = 4
SHARDS = 1 << BITS
BUFFER_ROWS = 16_384  # kept in memory until written; 16 small writes for each batch take long
MAX_SEGMENTS = 24  # a shard with more is rewritten: reading many small segments takes long
MOSTLY = 0.5  # a shard with a smaller share of rows in use is rewritten
BLOCK_ROWS = 65_536  # rows whose values are sorted in memory
ROW = "selected row"  # a column of numbers beside those of the values
SEGMENTS_AT_ONCE = 16  # in memory with all their columns, while some columns are read


class Shards:
    """The shards in a folder.

    Use: `contains` and `add` while rows come in; `select` once all have values; then `table` or
    `blocks`, and `numbers`.
    """

    def __init__(self, folder: Path, schema: pa.Schema, dtype: Any) -> None:
        """Open a folder.

        Args:
            folder: The folder; created if it does not exist.
            schema: Schema of `Values.table`.
            dtype: Type of `Values.numbers`.
        """
        self._schema, self._dtype = schema, np.dtype(dtype)
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [ShardFile(folder / f"{n:02d}", schema, dtype) for n in range(SHARDS)]
        self._index = self._new_index()
        self._buffer: list[tuple[Digests, Values]] = []
        self._places = np.empty(0, dtype=np.int64)  # of the selected rows among all stored ones

    def _segments(self) -> list[tuple[ShardFile, Segment]]:
        return [(file, segment) for file in self._files for segment in file.segments]

    def _new_index(self) -> DigestIndex:
        empty = np.empty((0, 2), dtype=np.uint64)
        digests = [segment.digests for _, segment in self._segments()]
        return DigestIndex(np.concatenate([empty, *digests]))

    def contains(self, digests: Digests) -> NDArray[np.bool_]:
        """Which rows had values when the folder was opened."""
        return self._index.find(digests) >= 0

    def add(self, digests: Digests, values: Values) -> None:
        """Add the values of rows; not after `select`."""
        self._buffer.append((digests, values))
        if sum(len(rows) for rows, _ in self._buffer) >= BUFFER_ROWS:
            self._write_buffer()

    def _write_buffer(self) -> None:
        """Append the buffered rows to their shards."""
        if not self._buffer:
            return
        digests = np.concatenate([rows for rows, _ in self._buffer])
        values = concatenated([values for _, values in self._buffer])
        self._buffer.clear()
        shards = digests[:, 0] >> np.uint64(64 - BITS)
        order = np.argsort(shards, kind="stable")
        digests, values = digests[order], values.take(order)  # one copy, then slices of it
        bounds = np.searchsorted(shards[order], np.arange(SHARDS + 1, dtype=np.uint64))
        for number, file in enumerate(self._files):
            first, last = int(bounds[number]), int(bounds[number + 1])
            if first < last:
                file.append(digests[first:last], values.slice(first, last))

    def select(self, digests: Digests) -> None:
        """Set the rows that `table`, `counts` and `numbers` return, in their order.

        Raises:
            RuntimeError: A row has no values.
        """
        self._write_buffer()
        self._index = DigestIndex(np.empty((0, 2), dtype=np.uint64))  # freed before the next one
        self._places = self._new_index().find(digests)
        if (self._places < 0).any():
            raise RuntimeError(f"{(self._places < 0).sum()} rows have no values")
        segments = self._segments()
        sizes = np.array([len(segment.counts) for _, segment in segments], dtype=np.int64)
        files = np.array([file.descriptor for file, _ in segments], dtype=np.int32)
        empty, size = np.empty(0, dtype=np.int64), self._dtype.itemsize
        counts = np.concatenate([empty, *(segment.counts for _, segment in segments)])
        starts = [s.numbers_at + size * (np.cumsum(s.counts) - s.counts) for _, s in segments]
        self._file_of = np.repeat(files, sizes)[self._places]
        self._starts = np.concatenate([empty, *starts])[self._places]
        self._counts = counts[self._places]

    def table(self, names: Sequence[str]) -> pa.Table:
        """Columns of the values of the selected rows."""
        stored = self._stored(names).combine_chunks()  # the chunks are freed before `take` copies
        return stored.take(pa.array(self._places))

    def _stored(self, names: Sequence[str]) -> pa.Table:
        """Columns of all stored values."""
        parts = [self._schema.empty_table().select(names)]
        for read in self._read(names):
            # a column of a table that was read keeps all other columns in memory
            is_whole = len(names) == len(self._schema)
            parts.append(read if is_whole else read.take(pa.array(np.arange(len(read)))))
        return pa.concat_tables(parts)

    def _read(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of all stored values, a few segments at a time."""
        segments = self._segments()
        for first in range(0, len(segments), SEGMENTS_AT_ONCE):
            some = segments[first : first + SEGMENTS_AT_ONCE]
            yield pa.concat_tables([file.read_table(segment, names) for file, segment in some])

    def blocks(self, names: Sequence[str], scratch: Path) -> Iterator[pa.Table]:
        """Columns of the values of the selected rows, in their order, `BLOCK_ROWS` rows at a time.

        Values are stored by digest. A few segments at a time are distributed to one file for each
        block, and each block is then sorted in memory.
        """
        total = len(self._places)
        if total <= BLOCK_ROWS:
            yield self.table(names)
            return
        schema = pa.schema([*(self._schema.field(name) for name in names), (ROW, pa.uint32())])
        scratch.mkdir(parents=True, exist_ok=True)
        paths = [scratch / f"{n:06d}.block" for n in range(-(-total // BLOCK_ROWS))]
        with ExitStack() as stack:
            files = [stack.enter_context(pa.ipc.new_stream(path, schema)) for path in paths]
            for number, table in self._dealt(names):
                files[number].write_table(table)
        for path in paths:
            with pa.ipc.open_stream(path) as stream:
                block = stream.read_all().combine_chunks()
            path.unlink()
            yield block.take(np.argsort(block.column(ROW).to_numpy())).select(names)

    def _dealt(self, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """(number of a block, some of its rows with their numbers)."""
        by_place = np.argsort(self._places, kind="stable")
        places, first, at = self._places[by_place], 0, 0
        for read in self._read(names):
            end = first + len(read)
            until = int(np.searchsorted(places, end))
            own = np.sort(by_place[at:until])
            blocks = own // BLOCK_ROWS
            bounds = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
            for start, stop in pairwise([*bounds, len(own)]):
                rows = own[start:stop]
                table = read.take(pa.array(self._places[rows] - first))
                yield int(blocks[start]), table.append_column(ROW, pa.array(rows, pa.uint32()))
            first, at = end, until

    def counts(self) -> Counts:
        """How many numbers each selected row has."""
        return self._counts

    def numbers(self, row: int) -> NDArray[Any]:
        """The numbers of one selected row."""
        size = int(self._counts[row]) * self._dtype.itemsize
        content = os.pread(int(self._file_of[row]), size, int(self._starts[row]))
        return np.frombuffer(content, dtype=self._dtype)

    def all_numbers(self) -> Iterator[NDArray[Any]]:
        """The numbers of each selected row, in order."""
        sizes = self._counts * self._dtype.itemsize
        places = (column.tolist() for column in (self._file_of, sizes, self._starts))
        return (np.frombuffer(part, dtype=self._dtype) for part in map(os.pread, *places))

    def numbers_of(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The numbers of some selected rows, one row after another."""
        sizes = self._counts[rows] * self._dtype.itemsize
        places = (column.tolist() for column in (self._file_of[rows], sizes, self._starts[rows]))
        return np.frombuffer(b"".join(map(os.pread, *places)), dtype=self._dtype)

    def close(self) -> None:
        """Write the buffer, and rewrite shards with few selected rows or many segments."""
        self._write_buffer()
        in_use = np.zeros(sum(len(segment.counts) for _, segment in self._segments()), dtype=bool)
        in_use[self._places] = True
        first = 0
        for file in self._files:
            kept = []
            for segment in file.segments:
                kept.append(in_use[first : first + len(segment.counts)])
                first += len(segment.counts)
            # nothing selected: the run failed before it knew its rows
            if len(self._places) and kept:
                share = np.concatenate(kept).mean()
                most = MAX_SEGMENTS + file.segments[-1].end // SEGMENT_BYTES
                if share < MOSTLY or len(kept) > most:
                    file.rewrite(kept)
            file.close()
