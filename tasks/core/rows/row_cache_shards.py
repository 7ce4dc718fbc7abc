"""Values of single rows that outlive a run, so that a run pays only for rows it has not seen.

In: digests of rows. Out: what a function gave for each of them, in this run or in an earlier one.

A row is known by the digest of its content, and the first bits of the digest say in which of 16
shards its values lie: a new, edited or removed row touches one shard, wherever it stands in the
input. A folder holds the shards of one function with all its arguments and code, so nothing in it
can be out of date; what no row asks for any more is removed once it is most of a shard.

A shard is a file of pieces, each with its own checksum, written as batches are done: a run that is
killed leaves them for the next. A piece that is torn or edited ends its shard there, which costs
the work again and nothing else.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.rows.row_digests import Digests, Index

BITS = 4
SHARDS = 1 << BITS
DEAL_ROWS = 16_384  # rows that wait in memory until they are written to their shards
MAX_PIECES = 24  # of a shard that is written anew, as reading many small ones takes long
MOSTLY = 0.5
COPIED_PIECES = 16  # that are in memory as they were read
_HEAD = struct.Struct("<8sQQI")  # magic, bytes of the table, bytes of the numbers, checksum
_MAGIC = b"shard-1\n"
_OWN = [("high", pa.uint64()), ("low", pa.uint64()), ("count", pa.int64())]

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Values:
    """What a function gave for some rows: a table of one row each, and a run of numbers each."""

    table: pa.Table
    numbers: NDArray[Any]
    counts: Counts


@dataclass(frozen=True)
class _Piece:
    """Where the parts of a piece lie in the file of its shard."""

    shard: int
    table_at: int
    numbers_at: int
    end: int


class Shards:
    """The shards of a folder: `knows` and `add` while rows come in, `locate` when all are known,
    then `table` and `numbers`."""

    def __init__(self, folder: Path, schema: pa.Schema, dtype: Any) -> None:
        """Open a folder.

        Args:
            folder: Made if it is not there.
            schema: Of the tables.
            dtype: Of the numbers.
        """
        self._folder, self._schema, self._dtype = folder, schema, np.dtype(dtype)
        self._fields = pa.schema([*_OWN, *schema])
        self._pieces: list[_Piece] = []
        self._digests: list[Digests] = []
        self._counts: list[Counts] = []
        self._waiting: list[tuple[Digests, Values]] = []
        self._places: Counts = np.empty(0, dtype=np.int64)
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [os.open(self._file(n), os.O_RDWR | os.O_CREAT) for n in range(SHARDS)]
        for number in range(SHARDS):
            self._read(number)
        self._known = Index(self._all_digests())

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:02d}"

    def _read(self, number: int) -> None:
        """Note the pieces of a shard; what is not whole is cut off."""
        descriptor, at = self._files[number], 0
        size = os.fstat(descriptor).st_size
        while at < size:
            piece = _whole_piece(descriptor, number, at, size)
            own = self._own_columns(piece) if piece else None
            if piece is None or own is None:
                os.ftruncate(descriptor, at)
                return
            self._note(piece, *own)
            at = piece.end

    def _own_columns(self, piece: _Piece) -> tuple[Digests, Counts] | None:
        table = self._table_of(piece)
        if not table.schema.equals(self._fields):
            return None
        high, low, count = (table.column(name).to_numpy() for name, _ in _OWN)
        return np.stack([high, low], axis=1), count

    def _table_of(self, piece: _Piece) -> pa.Table:
        content = os.pread(
            self._files[piece.shard], piece.numbers_at - piece.table_at, piece.table_at
        )
        return pa.ipc.open_stream(content).read_all()

    def _note(self, piece: _Piece, digests: Digests, counts: Counts) -> None:
        self._pieces.append(piece)
        self._digests.append(digests)
        self._counts.append(counts)

    def _all_digests(self) -> Digests:
        return np.concatenate([np.empty((0, 2), dtype=np.uint64), *self._digests])

    def knows(self, digests: Digests) -> NDArray[np.bool_]:
        """Which rows had values when the folder was opened."""
        return self._known.find(digests) >= 0

    def add(self, digests: Digests, values: Values) -> None:
        """Add the values of rows."""
        self._waiting.append((digests, values))
        if sum(len(rows) for rows, _ in self._waiting) >= DEAL_ROWS:
            self._deal()

    def _deal(self) -> None:
        """Write what waits to its shards."""
        if not self._waiting:
            return
        digests = np.concatenate([rows for rows, _ in self._waiting])
        counts = np.concatenate([values.counts for _, values in self._waiting])
        numbers = np.concatenate([values.numbers for _, values in self._waiting])
        table = pa.concat_tables([values.table for _, values in self._waiting])
        self._waiting.clear()
        shards = digests[:, 0] >> np.uint64(64 - BITS)
        order = np.argsort(shards, kind="stable")
        digests, table = digests[order], table.take(pa.array(order))
        numbers, counts = _taken(numbers, counts, order)
        ends = np.concatenate([[0], np.cumsum(counts)])
        bounds = np.searchsorted(shards[order], np.arange(SHARDS + 1, dtype=np.uint64))
        for number in range(SHARDS):
            first, last = int(bounds[number]), int(bounds[number + 1])
            if first < last:
                part = Values(
                    table.slice(first, last - first),
                    numbers[ends[first] : ends[last]],
                    counts[first:last],
                )
                self._append(number, digests[first:last], part)

    def _append(self, number: int, digests: Digests, values: Values) -> None:
        descriptor = self._files[number]
        at = os.fstat(descriptor).st_size
        content, table_bytes = self._packed(digests, values)
        os.pwrite(descriptor, content, at)
        table_at = at + _HEAD.size
        piece = _Piece(number, table_at, table_at + table_bytes, at + len(content))
        self._note(piece, digests, values.counts)

    def _packed(self, digests: Digests, values: Values) -> tuple[bytes, int]:
        """A piece as bytes, and how many of them are its table."""
        own = [pa.array(column) for column in (digests[:, 0], digests[:, 1], values.counts)]
        whole = pa.Table.from_arrays([*own, *values.table.columns], schema=self._fields)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._fields) as stream:
            stream.write_table(whole.combine_chunks())
        table = sink.getvalue().to_pybytes()
        numbers = np.ascontiguousarray(values.numbers, dtype=self._dtype).tobytes()
        body = table + numbers
        return _HEAD.pack(_MAGIC, len(table), len(numbers), crc32(body)) + body, len(table)

    def locate(self, digests: Digests) -> None:
        """Say which rows are meant from now on, in their order; all of them must be known."""
        self._deal()
        self._known = Index(self._all_digests())
        self._places = self._known.find(digests)
        if (self._places < 0).any():
            raise RuntimeError(f"{(self._places < 0).sum()} rows have no values")
        sizes = [len(rows) for rows in self._digests]
        size = self._dtype.itemsize
        starts = [
            piece.numbers_at + size * (np.cumsum(counts) - counts)
            for piece, counts in zip(self._pieces, self._counts, strict=True)
        ]
        files = np.array([self._files[piece.shard] for piece in self._pieces], dtype=np.int64)
        self._file_of = np.repeat(files, sizes)[self._places]
        self._starts = np.concatenate([np.empty(0, np.int64), *starts])[self._places]
        self._lengths = np.concatenate([np.empty(0, np.int64), *self._counts])[self._places]

    def table(self, names: Sequence[str]) -> pa.Table:
        """Columns of the rows' values, in their order."""
        whole = self._stored(names).combine_chunks()  # by then the parts are gone
        return whole.take(pa.array(self._places))

    def _stored(self, names: Sequence[str]) -> pa.Table:
        """Columns of all values as they lie in the shards."""
        parts = [self._schema.empty_table().select(names)]
        for first in range(0, len(self._pieces), COPIED_PIECES):
            some = self._pieces[first : first + COPIED_PIECES]
            read = pa.concat_tables([self._table_of(piece).select(names) for piece in some])
            parts.append(_own_copy(read))
        return pa.concat_tables(parts)

    def counts(self) -> Counts:
        """How many numbers each row has."""
        return self._lengths

    def numbers(self, row: int) -> NDArray[Any]:
        """The numbers of a row."""
        size = int(self._lengths[row]) * self._dtype.itemsize
        content = os.pread(int(self._file_of[row]), size, int(self._starts[row]))
        return np.frombuffer(content, dtype=self._dtype)

    def numbers_of(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The numbers of some rows, one behind the other."""
        sizes = self._lengths[rows] * self._dtype.itemsize
        places = (column.tolist() for column in (self._file_of[rows], sizes, self._starts[rows]))
        return np.frombuffer(b"".join(map(os.pread, *places)), dtype=self._dtype)

    def close(self) -> None:
        """Write what waits, and shards anew that are mostly rows nobody asked for, or in many
        pieces."""
        self._deal()
        asked = np.zeros(sum(map(len, self._digests)), dtype=bool)
        asked[self._places] = True
        firsts = np.cumsum([0, *map(len, self._digests)])
        by_shard: dict[int, list[int]] = {}
        for i, piece in enumerate(self._pieces):
            by_shard.setdefault(piece.shard, []).append(i)
        for number, pieces in by_shard.items():
            kept = [asked[firsts[i] : firsts[i + 1]] for i in pieces]
            share = np.concatenate(kept).mean()
            if len(self._places) and (share < MOSTLY or len(pieces) > MAX_PIECES):
                self._write_anew(number, pieces, kept)
        for descriptor in self._files:
            os.close(descriptor)

    def _write_anew(self, number: int, pieces: list[int], kept: list[NDArray[np.bool_]]) -> None:
        """Replace a shard by one piece with the rows that are kept."""
        if not any(keep.any() for keep in kept):
            os.ftruncate(self._files[number], 0)
            return
        tables, numbers, counts, digests = [], [], [], []
        for i, keep in zip(pieces, kept, strict=True):
            piece, rows = self._pieces[i], np.flatnonzero(keep)
            raw = os.pread(self._files[number], piece.end - piece.numbers_at, piece.numbers_at)
            some, some_counts = _taken(np.frombuffer(raw, dtype=self._dtype), self._counts[i], rows)
            tables.append(self._table_of(piece).select(self._schema.names).take(pa.array(rows)))
            numbers.append(some)
            counts.append(some_counts)
            digests.append(self._digests[i][rows])
        values = Values(pa.concat_tables(tables), np.concatenate(numbers), np.concatenate(counts))
        fresh = self._file(number).with_suffix(".new")
        fresh.write_bytes(self._packed(np.concatenate(digests), values)[0])
        fresh.rename(self._file(number))


def _whole_piece(descriptor: int, number: int, at: int, size: int) -> _Piece | None:
    """The piece that begins at a place of a file; None if it is torn or edited."""
    head = os.pread(descriptor, _HEAD.size, at)
    if len(head) < _HEAD.size:
        return None
    magic, table_bytes, number_bytes, checksum = _HEAD.unpack(head)
    table_at = at + _HEAD.size
    end = table_at + table_bytes + number_bytes
    if magic != _MAGIC or end > size:
        return None
    if crc32(os.pread(descriptor, end - table_at, table_at)) != checksum:
        return None
    return _Piece(number, table_at, table_at + table_bytes, end)


def _own_copy(table: pa.Table) -> pa.Table:
    """The same columns without the rest of what was read with them."""
    return table.take(pa.array(np.arange(len(table))))


def _taken(
    numbers: NDArray[Any], counts: Counts, rows: NDArray[np.int64]
) -> tuple[NDArray[Any], Counts]:
    """The runs of some rows, one behind the other, and how long each is."""
    starts = np.cumsum(counts) - counts
    lengths = counts[rows]
    bounds = zip(starts[rows].tolist(), lengths.tolist(), strict=True)
    return np.concatenate([numbers[:0], *(numbers[at : at + n] for at, n in bounds)]), lengths
