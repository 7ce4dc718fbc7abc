"""Parquet in batches: a writer and a reader with bounded memory, each with its own thread.

The same rows give the same bytes, however they arrive: a row group ends after a fixed number of
rows, or with the block of rows in which its texts exceed a number of bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

GROUP_ROWS = 4096  # rows of a row group: one to two MB of text
# rows that are read at once, a quarter of a row group; a stage whose batches mean something else,
# such as a batch of the model, defines its own
BATCH_ROWS = 1024
GROUP_BYTES = 64 << 20  # of text, for rows of many kB
BLOCK_ROWS = 128  # rows that become Arrow arrays at once
# the same for rows that are small: as many take half the time per row
SMALL_ROWS, SMALL_BYTES = 512, 8 << 10


class TableWriter:
    """Collects rows or tables, and writes row groups of a fixed size.

    A thread compresses and writes one row group while the caller produces the next rows.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        group_rows: int = GROUP_ROWS,
        encodings: Mapping[str, str] | None = None,
    ) -> None:
        """Create a file.

        Args:
            path: The file.
            schema: Schema of its rows.
            group_rows: Rows of a row group.
            encodings: Column -> Parquet encoding, for columns that are not to be plain.
        """
        # a second run mostly reads and writes: lz4 halves that time for 1.4 times the size, and it
        # finds repeated values without dictionaries
        self._writer = pq.ParquetWriter(
            path, schema, compression="lz4", use_dictionary=False, column_encoding=encodings
        )
        self._schema = schema
        self._group_rows = group_rows
        self._rows: list[tuple[Any, ...]] = []
        self._block_rows = BLOCK_ROWS
        self._tables: list[pa.Table] = []
        self._table_rows = self._table_bytes = 0
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self.rows = 0

    def add(self, row: tuple[Any, ...]) -> None:
        """Add one row, its values in the order of the schema."""
        self._rows.append(row)
        self.rows += 1
        if len(self._rows) >= self._block_rows:
            self._take_rows()

    def extend(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows."""
        for row in rows:
            self.add(row)

    def add_table(self, table: pa.Table) -> None:
        """Add all rows of a table of the same schema."""
        self._take_rows()
        self.rows += len(table)
        self._keep(table)

    def _take_rows(self) -> None:
        if self._rows:
            table = as_table(self._rows, self._schema)
            self._rows = []
            table_bytes = self._keep(table)
            is_small = table_bytes < SMALL_BYTES * len(table)
            self._block_rows = SMALL_ROWS if is_small else BLOCK_ROWS

    def _keep(self, table: pa.Table) -> int:
        """Add a table; returns its bytes."""
        self._tables.append(table)
        self._table_rows += len(table)
        table_bytes: int = table.nbytes
        self._table_bytes += table_bytes
        if self._table_rows >= self._group_rows or self._table_bytes >= GROUP_BYTES:
            rest = pa.concat_tables(self._tables)
            while end := self._group_end(rest):
                self._write(rest.slice(0, end))
                rest = rest.slice(end)
            self._tables = [rest] if len(rest) else []
            self._table_rows, self._table_bytes = len(rest), rest.nbytes
        return table_bytes

    def _group_end(self, table: pa.Table) -> int:
        """Number of rows of the next row group; 0 if it is not complete."""
        if table.nbytes >= GROUP_BYTES:
            text_bytes = 0
            for end in range(BLOCK_ROWS, min(len(table), self._group_rows) + 1, BLOCK_ROWS):
                text_bytes += _text_bytes(table.slice(end - BLOCK_ROWS, BLOCK_ROWS))
                if text_bytes >= GROUP_BYTES:
                    return end
        return self._group_rows if len(table) >= self._group_rows else 0

    def _write(self, table: pa.Table) -> None:
        """Write a row group once the one before it is written."""
        self._wait()
        self._writing = self._thread.submit(self._write_group, table)

    def _write_group(self, table: pa.Table) -> None:
        # its pages depend on the chunks of the table, so there is one
        self._writer.write_table(table.combine_chunks(), row_group_size=self._group_rows)

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def finish(self) -> None:
        """Start writing the remaining rows, so that several writers can finish in parallel."""
        self._take_rows()
        if self._tables:
            self._write(pa.concat_tables(self._tables))
            self._tables, self._table_rows, self._table_bytes = [], 0, 0

    def close(self) -> None:
        """Write the remaining rows and close the file."""
        try:
            self.finish()
            self._wait()
        finally:
            self._thread.shutdown()
            self._writer.close()

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text_bytes(table: pa.Table) -> int:
    """Bytes of all texts; not `nbytes`, which depends on how a table was put together."""
    texts = (column for column in table.columns if pa.types.is_string(column.type))
    return sum(pc.sum(pc.binary_length(column)).as_py() or 0 for column in texts)


def as_table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Rows (values in the order of the schema) as a table."""
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    arrays = [_as_array(list(c), f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _as_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """One column. About half of a row's columns say where it was read, and are often the same in
    all rows: a repeated value takes a tenth of the time of a list."""
    first = values[0] if values else None
    # of text only: numbers that are equal may have other bytes, such as 0.0 and -0.0
    if isinstance(first, str) and first == values[-1] and values.count(first) == len(values):
        return pa.repeat(pa.scalar(first, type=kind), len(values))
    return pa.array(values, type=kind)


def read_batches(
    path: Path, batch_rows: int = BATCH_ROWS, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """Yield a Parquet file as tables of `batch_rows` rows, the last one perhaps shorter.

    A thread reads the next table while the caller processes this one.
    """
    with pq.ParquetFile(path) as file, ThreadPoolExecutor(1) as thread:
        batches = file.iter_batches(batch_rows, columns=columns)
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield pa.Table.from_batches([batch])
