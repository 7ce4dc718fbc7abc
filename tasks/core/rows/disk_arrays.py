"""Arrays and tables with an entry for every row, whatever their number: large ones are files in a
scratch folder, whose pages the kernel writes and frees when memory is short."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.rows.row_digests import row_digests

IN_MEMORY_BYTES = 32 << 20
IN_MEMORY_ROWS = 200_000
BATCH_ROWS = 65_536  # of a single column of short texts, such as ids


class DiskArrays:
    """Creates arrays in a folder; None: all in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._made = 0

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """A new array of zeros."""
        if self._folder is None or np.prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY_BYTES:
            return np.zeros(shape, dtype)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made += 1
        path = self._folder / f"{self._made:03d}.array"
        array = np.asarray(np.memmap(path, dtype, "w+", shape=shape))
        path.unlink()  # the mapping keeps it; nothing is left behind when the process ends
        return array


def group_numbers(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A number from 0 for each of the different keys, which have two columns; one per row."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    is_new = np.zeros(len(keys), dtype=np.int64)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = np.cumsum(is_new)
    return numbers


def text_numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number from 0 for each of the different texts of a column; one per row."""
    if len(column) <= IN_MEMORY_ROWS:
        indices = column.combine_chunks().dictionary_encode(null_encoding="encode").indices
        return np.asarray(indices).astype(np.int64)
    # a dictionary would hold all texts twice
    batches = pa.table({"text": column}).to_batches(BATCH_ROWS)
    return group_numbers(
        np.concatenate([row_digests(pa.Table.from_batches([batch])) for batch in batches])
    )


def mapped_table(path: Path, columns: list[str], scratch: Path) -> pa.Table:
    """Columns of a Parquet file as a table whose memory is a file in `scratch`."""
    with pq.ParquetFile(path) as file:
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        with pa.ipc.new_file(scratch, schema) as writer:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                writer.write_batch(batch.select(columns))
    return pa.ipc.open_file(pa.memory_map(str(scratch))).read_all()
