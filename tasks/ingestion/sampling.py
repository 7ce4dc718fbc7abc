"""Uniform samples of rows by their ids, which are hashes: no seed is needed, and a new row of the
source changes at most one row of a sample."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.core.rows.hash_rank import RANKS, id_rank
from tasks.core.rows.parquet import read_batches
from tasks.ingestion.rows import Row, Unreadable

BATCH_ROWS = 4096


def thin(
    items: Iterable[Row | Unreadable], weight: float, counts: Counter[str]
) -> Iterator[Row | Unreadable]:
    """Keep a share of the rows: those whose id, as a number, is in the first `weight` of the range.
    The decision depends on the row alone, and a larger weight only adds rows."""
    below = round(weight * RANKS)
    for item in items:
        if isinstance(item, Row) and id_rank(item.row_id) >= below:
            counts["rows over weight"] += 1
        else:
            yield item


def repeat(items: Iterable[Row | Unreadable], weight: float) -> Iterator[Row | Unreadable]:
    """Mark how often each row is trained on: `weight` times on average, where the rows that are
    repeated once more than others are chosen as in `thin`."""
    whole = int(weight)
    below = round((weight - whole) * RANKS)
    for item in items:
        if isinstance(item, Row):
            yield item._replace(repeats=whole + (id_rank(item.row_id) < below))
        else:
            yield item


def sample(path: Path, max_rows: int) -> Iterator[pa.Table]:
    """Yield the `max_rows` rows with the smallest ids of a Parquet file, in batches, in the file's
    order."""
    prefixes = [_prefixes(batch) for batch in read_batches(path, BATCH_ROWS, ["row_id"])]
    everything = np.concatenate(prefixes) if prefixes else np.empty(0, dtype=np.uint64)
    chosen = np.zeros(len(everything), dtype=bool)
    chosen[np.argsort(everything, kind="stable")[:max_rows]] = True
    start = 0
    for batch in read_batches(path, BATCH_ROWS):
        yield batch.filter(pa.array(chosen[start : start + len(batch)]))
        start += len(batch)


def _prefixes(batch: pa.Table) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """The first 64 bits of the ids."""
    ids = batch.column("row_id").to_pylist()
    return np.fromiter((id_rank(row_id) for row_id in ids), dtype=np.uint64, count=len(ids))
