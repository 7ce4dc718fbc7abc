"""One shard of the row cache: an append-only file of segments, each with a checksum.

A segment holds the values of some rows: a header, an Arrow table of one line for each row (digest,
number count, and the columns of the values), and the numbers of all rows one after another. It is
appended in one write when a batch is done, so a killed run leaves whole segments for the next one.
A segment that is torn or edited ends the file there: the rows from there on are computed again.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from tasks.core.rows.row_digests import Digests
from tasks.core.system.atomic_write import written_whole

_HEAD = struct.Struct("<8sQQQ")  # magic, bytes of the table, bytes of the numbers, checksum
_MAGIC = b"shard-2\n"
SEGMENT_BYTES = 8 << 20  # a rewritten segment, about: two of them are in memory
_OWN = [("high", pa.uint64()), ("low", pa.uint64()), ("count", pa.int64())]

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Values:
    """The values of some rows: a table of one line each, and any number of numbers each.

    Attributes:
        table: Small values, which are read for all rows at once.
        numbers: The numbers of all rows, one row after another, which are read row by row.
        counts: How many numbers each row has.
    """

    table: pa.Table
    numbers: NDArray[Any]
    counts: Counts

    def take(self, rows: NDArray[np.int64]) -> "Values":
        """The values of some rows, in the order of `rows`."""
        starts, counts = np.cumsum(self.counts) - self.counts, self.counts[rows]
        bounds = zip(starts[rows].tolist(), counts.tolist(), strict=True)
        # the empty part keeps the type where there are no rows
        parts = [self.numbers[:0], *(self.numbers[at : at + n] for at, n in bounds)]
        return Values(self.table.take(pa.array(rows)), np.concatenate(parts), counts)

    def slice(self, first: int, last: int) -> "Values":
        """The values of the rows from `first` to before `last`, without a copy."""
        start, end = (int(self.counts[:row].sum()) for row in (first, last))
        table = self.table.slice(first, last - first)
        return Values(table, self.numbers[start:end], self.counts[first:last])


@dataclass(frozen=True)
class Segment:
    """Digests and number counts of a segment's rows, and where its parts are in the file."""

    digests: Digests
    counts: Counts
    table_at: int
    numbers_at: int
    end: int


class ShardFile:
    """An open shard."""

    def __init__(self, path: Path, schema: pa.Schema, dtype: Any) -> None:
        """Open a shard and read its digests; it is created if it does not exist.

        Args:
            path: The file.
            schema: Schema of `Values.table`.
            dtype: Type of `Values.numbers`.
        """
        self._path, self._schema, self._dtype = path, schema, np.dtype(dtype)
        self._fields = pa.schema([*_OWN, *schema])
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        self.segments: list[Segment] = []
        size, at = os.fstat(self.descriptor).st_size, 0
        while at < size:
            segment = self._segment(at, size)
            if segment is None:
                os.ftruncate(self.descriptor, at)
                return
            self.segments.append(segment)
            at = segment.end

    def _segment(self, at: int, size: int) -> Segment | None:
        """The segment that begins at `at`; None if it is torn, edited or of another schema."""
        head = os.pread(self.descriptor, _HEAD.size, at)
        if len(head) < _HEAD.size:
            return None
        magic, table_bytes, number_bytes, checksum = _HEAD.unpack(head)
        table_at = at + _HEAD.size
        end = table_at + table_bytes + number_bytes
        if magic != _MAGIC or end > size:
            return None
        body = os.pread(self.descriptor, end - table_at, table_at)
        if xxh3_64_intdigest(body) != checksum:
            return None
        table = pa.ipc.open_stream(body[:table_bytes]).read_all()
        if not table.schema.equals(self._fields):
            return None
        high, low, counts = (table.column(name).to_numpy() for name, _ in _OWN)
        digests = np.stack([high, low], axis=1)
        # a copy: the column would keep the whole segment in memory
        return Segment(digests, counts.copy(), table_at, table_at + table_bytes, end)

    def read_table(self, segment: Segment, names: Sequence[str]) -> pa.Table:
        """Columns of the values of a segment."""
        size = segment.numbers_at - segment.table_at
        content = os.pread(self.descriptor, size, segment.table_at)
        return pa.ipc.open_stream(content).read_all().select(names)

    def append(self, digests: Digests, values: Values) -> None:
        """Write the values of some rows as a new segment."""
        at = os.fstat(self.descriptor).st_size
        content, table_bytes = self._packed(digests, values)
        os.pwrite(self.descriptor, content, at)
        table_at = at + _HEAD.size
        self.segments.append(
            Segment(digests, values.counts, table_at, table_at + table_bytes, at + len(content))
        )

    def _packed(self, digests: Digests, values: Values) -> tuple[bytes, int]:
        """A segment as bytes, and the size of its table."""
        own = [pa.array(column) for column in (digests[:, 0], digests[:, 1], values.counts)]
        whole = pa.Table.from_arrays([*own, *values.table.columns], schema=self._fields)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._fields) as stream:
            stream.write_table(whole.combine_chunks())
        table = sink.getvalue().to_pybytes()
        numbers = np.ascontiguousarray(values.numbers, dtype=self._dtype).tobytes()
        body = table + numbers
        head = _HEAD.pack(_MAGIC, len(table), len(numbers), xxh3_64_intdigest(body))
        return head + body, len(table)

    def rewrite(self, kept: Sequence[NDArray[np.bool_]]) -> None:
        """Replace the file by few segments with the rows that are kept, given for each segment.

        For the end of a run: what was read from the old file is no longer valid.
        """
        if not any(keep.any() for keep in kept):
            os.ftruncate(self.descriptor, 0)
            return
        with written_whole(self._path) as temporary, temporary.open("wb") as file:
            digests, parts, size = [], [], 0
            for number, (segment, keep) in enumerate(zip(self.segments, kept, strict=True), 1):
                parts.append(self._values(segment).take(np.flatnonzero(keep)))
                digests.append(segment.digests[keep])
                size += segment.end - segment.table_at
                if size >= SEGMENT_BYTES or number == len(kept):
                    whole = np.concatenate(digests), concatenated(parts)
                    if len(whole[0]):
                        file.write(self._packed(*whole)[0])
                    digests, parts, size = [], [], 0

    def _values(self, segment: Segment) -> Values:
        """All values of a segment."""
        size = segment.end - segment.numbers_at
        raw = os.pread(self.descriptor, size, segment.numbers_at)
        table = self.read_table(segment, self._schema.names)
        return Values(table, np.frombuffer(raw, dtype=self._dtype), segment.counts)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def concatenated(parts: Sequence[Values]) -> Values:
    """The values of all parts, one after another."""
    return Values(
        pa.concat_tables([part.table for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )
