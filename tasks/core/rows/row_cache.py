"""Row cache: values of single rows persist across runs, so a run computes only those of new rows.

In: tables of rows, and a pure function of a batch. Out: `Shards` with the values of every row. The
shards of a stage are in artifacts/.shards/<stage>/, in one folder for each set of arguments; the
last used folders are kept. All of it may be deleted at any time.

row_cache.py          computes missing values, in batches and processes
row_cache_folders.py  folders: locking, removing old ones
row_cache_shards.py   digest -> values, over the shards of a folder
row_cache_file.py     the file format of a shard
row_digests.py        row -> digest
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.progress import report
from tasks.core.rows.parquet import BATCH_ROWS
from tasks.core.rows.row_cache_file import Values
from tasks.core.rows.row_cache_folders import KEEP, hold, old_folders
from tasks.core.rows.row_cache_shards import Shards
from tasks.core.rows.row_digests import Digests, row_digests
from tasks.core.stage import Work

# digests of some rows, and a function that returns those of a mask, as a table
Part = tuple[Digests, Callable[[NDArray[np.bool_]], pa.Table]]


def by_content(tables: Iterable[pa.Table]) -> Iterator[Part]:
    """Rows that are identified by all their columns."""
    for table in tables:
        yield row_digests(table), partial(_chosen, table)


def by_columns(path: Path, names: list[str], columns: list[str]) -> Iterator[Part]:
    """Rows of a Parquet file that some of their columns identify.

    The other columns are read only of row groups with a row that is not cached.

    Args:
        path: The file.
        names: Columns that decide all that the function reads, such as an id that is a hash.
        columns: What the function reads.
    """
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            whole = cache(partial(file.read_row_group, group, columns))
            digests = row_digests(file.read_row_group(group, names))
            for first in range(0, len(digests), BATCH_ROWS):
                own = digests[first : first + BATCH_ROWS]
                yield own, partial(_chosen_of, whole, first)


def _chosen(table: pa.Table, mask: NDArray[np.bool_]) -> pa.Table:
    return table.filter(pa.array(mask))


def _chosen_of(whole: Callable[[], pa.Table], first: int, mask: NDArray[np.bool_]) -> pa.Table:
    return _chosen(whole().slice(first, len(mask)), mask)


@contextmanager
def opened(
    work: Work, arguments: object, schema: pa.Schema, dtype: Any, part: str = ""
) -> Iterator[Shards]:
    """Open the shards for a function of a stage with its arguments.

    If the stage has no folder for them, or another run uses it, they are temporary: in the stage's
    scratch folder, and removed at the end.

    Args:
        work: The stage's work.
        arguments: Everything besides the rows that decides the values, compared by `repr`.
        schema: Schema of `Values.table`.
        dtype: Type of `Values.numbers`.
        part: Name of a function or source of a stage that has several, so that one does not
            replace the folders of another.
    """
    stage = work.shards
    if stage and part:
        stage = stage.with_name(f"{stage.name}-{sha256(part.encode()).hexdigest()[:8]}")
    identity = f"{work.code}\0{arguments!r}\0{schema}\0{np.dtype(dtype)}"
    place = stage / sha256(identity.encode()).hexdigest()[:12] if stage else None
    lock = hold(place) if place else None
    own = place if place and lock is not None else work.scratch / "shards"
    try:
        shards = Shards(own, schema, dtype)
        try:
            yield shards
        finally:
            shards.close()
    finally:
        if lock is None:
            shutil.rmtree(own, ignore_errors=True)
        else:
            lock.close()
    if stage and lock is not None:
        for old in old_folders(stage, KEEP):
            shutil.rmtree(old, ignore_errors=True)


def fill(
    shards: Shards,
    parts: Iterable[Part],
    function: Callable[[Any], Values],
    batch_of: Callable[[pa.Table], Any],
    work: Work,
    *,
    workers: int,
    batch_rows: int,
    rows_for_processes: int,
    progress: tuple[str, int],
) -> Digests:
    """Compute the values of rows that are not cached, and select all rows in `shards`.

    Args:
        shards: Freshly opened shards.
        parts: The rows, in order; see `by_content`.
        function: Batch -> values of its rows; importable by name.
        batch_of: Table of rows -> batch.
        work: The stage's work, which runs batches.
        workers: Number of processes.
        batch_rows: Rows of a batch.
        rows_for_processes: Fewer missing rows are computed in this process, which takes less time
            than starting others.
        progress: Label and total number of rows, for the progress.

    Returns:
        The digests of all rows, in order.
    """
    name, total = progress
    seen: list[Digests] = [np.empty((0, 2), dtype=np.uint64)]
    waiting: deque[Digests] = deque()

    def missing() -> Iterator[tuple[Digests, pa.Table]]:
        for digests, chosen in parts:
            seen.append(digests)
            is_new = ~shards.contains(digests)
            if is_new.any():
                yield digests[is_new], chosen(is_new)

    batches = _of_size(missing(), batch_rows)
    first = list(islice(batches, -(-rows_for_processes // batch_rows)))
    few = sum(len(digests) for digests, _ in first) < rows_for_processes

    def chunks() -> Iterator[Any]:
        for digests, table in chain(first, batches):
            waiting.append(digests)
            yield batch_of(table)

    done = 0
    for values in work.run_batches(function, chunks(), 1 if few else workers):
        digests = waiting.popleft()
        shards.add(digests, values)
        done += len(digests)
        report(name, done, total)
    digests = np.concatenate(seen)
    shards.select(digests)
    report(name, total, total, f"{total - done:,} known from earlier runs" if done < total else "")
    return digests


def _of_size(
    parts: Iterable[tuple[Digests, pa.Table]], rows: int
) -> Iterator[tuple[Digests, pa.Table]]:
    """The same rows in parts of at least `rows` rows; the last part may have fewer."""
    digests: list[Digests] = []
    tables: list[pa.Table] = []
    for some, table in parts:
        digests.append(some)
        tables.append(table)
        if sum(map(len, digests)) >= rows:
            yield np.concatenate(digests), pa.concat_tables(tables).combine_chunks()
            digests, tables = [], []
    if digests:
        yield np.concatenate(digests), pa.concat_tables(tables).combine_chunks()
