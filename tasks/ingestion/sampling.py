"""Uniform samples of rows by their ids, which are hashes: no seed is needed, and a new row of the
source changes at most one row of a sample."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.core.rows.hash_rank import RANKS, id_rank
from tasks.core.rows.parquet import read_batches
from tasks.ingestion.rows import Row, Unreadable

BATCH_ROWS = 512


def weighted(
    items: Iterable[Row | Unreadable], weights: Mapping[str, float], counts: Counter[str]
) -> Iterator[Row | Unreadable]:
    """Keep a share of the rows, or mark how often each is trained on.

    Up to 1, a weight keeps the rows whose id, as a number, is in the first `weight` of the range:
    the decision depends on the row alone, and a larger weight only adds rows. Above 1, a row is
    trained on `weight` times on average; those that are repeated once more are chosen likewise.

    Args:
        items: Rows and ledger entries.
        weights: By kind of row; that of "" for any other kind.
        counts: Gets the number of rows that are left out.
    """
    for item in items:
        if not isinstance(item, Row):
            yield item
            continue
        weight = weights.get(item.kind, weights[""])
        if weight == 1.0:  # `_replace` takes as long as reading a known row
            yield item
            continue
        whole = int(weight)
        times = whole + (id_rank(item.row_id) < round((weight - whole) * RANKS))
        if times:
            yield item._replace(repeats=times)
        else:
            counts["rows over weight"] += 1


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
