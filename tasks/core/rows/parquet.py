"""Writing Parquet in batches: bounded memory, and the same bytes for the same rows however they
arrive."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 4096  # rows of a row group; a MB or two of text


class TableWriter:
    """Collects rows or tables and writes row groups of a fixed size, one at a time, in a thread:
    compressing goes on while the next rows are made."""

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        group_rows: int = GROUP_ROWS,
        encodings: Mapping[str, str] | None = None,
    ) -> None:
        """Begin a file.

        Args:
            path: Of the file.
            schema: Of its rows.
            group_rows: Rows of a row group.
            encodings: Parquet's encoding of a column, where not the plain one.
        """
        # a second run mostly reads and writes, and lz4 halves the time of that for 1.4 times the
        # room; it finds what comes again without dictionaries
        self._writer = pq.ParquetWriter(
            path, schema, compression="lz4", use_dictionary=False, column_encoding=encodings
        )
        self._schema = schema
        self._group_rows = group_rows
        self._rows: list[tuple[Any, ...]] = []
        self._tables: list[pa.Table] = []
        self._table_rows = 0
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self.rows = 0

    def add(self, row: tuple[Any, ...]) -> None:
        """Add one row, its values in the order of the schema."""
        self._rows.append(row)
        self.rows += 1
        if len(self._rows) >= self._group_rows:
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
            self._keep(as_table(self._rows, self._schema))
            self._rows = []

    def _keep(self, table: pa.Table) -> None:
        self._tables.append(table)
        self._table_rows += len(table)
        if self._table_rows >= self._group_rows:
            whole = pa.concat_tables(self._tables)
            cut = len(whole) - len(whole) % self._group_rows
            self._write(whole.slice(0, cut))
            rest = whole.slice(cut)
            self._tables, self._table_rows = [rest] if len(rest) else [], len(rest)

    def _write(self, table: pa.Table) -> None:
        """Write a table behind the one that is being written."""
        self._wait()
        self._writing = self._thread.submit(
            self._writer.write_table, table, row_group_size=self._group_rows
        )

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def finish(self) -> None:
        """Begin to write what is left: for several writers to end side by side."""
        self._take_rows()
        if self._tables:
            self._write(pa.concat_tables(self._tables))
            self._tables, self._table_rows = [], 0

    def close(self) -> None:
        """Write what is left and close the file."""
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


def as_table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Rows (values in the order of the schema) as a table."""
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    arrays = [pa.array(list(c), type=f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def read_batches(
    path: Path, batch_rows: int, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """Yield a Parquet file as tables of `batch_rows` rows (the last one shorter); the next one is
    read, in a thread, while the caller works on this one."""
    with pq.ParquetFile(path) as file, ThreadPoolExecutor(1) as thread:
        batches = file.iter_batches(batch_rows, columns=columns)
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield pa.Table.from_batches([batch])
