"""Working out per-row values in batches and processes, and taking up those of earlier runs.

In: tables of rows, and a pure function of a batch. Out: `Shards` that know every row. The shards of
a stage lie in artifacts/.shards/<stage>/, one folder for each set of arguments; the last ones used
are kept. All of it may be deleted at any time.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.core.progress import report
from tasks.core.rows.row_cache_folders import KEEP, hold, old_folders
from tasks.core.rows.row_cache_shards import Shards, Values
from tasks.core.rows.row_digests import Digests, row_digests
from tasks.core.stage import Work


@contextmanager
def opened(
    work: Work, arguments: object, schema: pa.Schema, dtype: Any, part: str = ""
) -> Iterator[Shards]:
    """Shards of a stage's function with its arguments, for one run.

    Where the stage has no place for them, or another run is using them, they lie in its scratch
    folder and are gone afterwards.

    Args:
        work: Of the stage.
        arguments: All that the function is given besides the rows; told apart by `repr`.
        schema: Of the tables.
        dtype: Of the numbers.
        part: Tells functions or sources of one stage apart, so that they don't push each other out.
    """
    stage = work.shards
    if stage and part:
        stage = stage.with_name(f"{stage.name}-{sha256(part.encode()).hexdigest()[:8]}")
    told = f"{work.code}\0{arguments!r}\0{schema}\0{np.dtype(dtype)}"
    place = stage / sha256(told.encode()).hexdigest()[:12] if stage else None
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
    tables: Iterable[pa.Table],
    function: Callable[[Any], Values],
    batch_of: Callable[[pa.Table], Any],
    work: Work,
    *,
    workers: int,
    batch_rows: int,
    rows_for_processes: int,
    told: tuple[str, int],
) -> Digests:
    """Work out the values of the rows that the shards don't know; then they know all.

    Args:
        shards: Just opened.
        tables: The rows, in order.
        function: Values of a batch; importable by name.
        batch_of: A batch for `function` from a table.
        work: Of the stage: how batches are run.
        workers: Processes.
        batch_rows: Rows of a batch.
        rows_for_processes: Fewer unknown rows are done sooner than processes start.
        told: Name and total number of rows, for the progress.

    Returns:
        The digests of all rows, in order, as `Shards.locate` wants them.
    """
    name, total = told
    seen: list[Digests] = [np.empty((0, 2), dtype=np.uint64)]
    waiting: deque[Digests] = deque()

    def unknown() -> Iterator[tuple[Digests, pa.Table]]:
        for table in tables:
            digests = row_digests(table)
            seen.append(digests)
            is_new = ~shards.knows(digests)
            if is_new.any():
                yield digests[is_new], table.filter(pa.array(is_new))

    batches = _of_size(unknown(), batch_rows)
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
    shards.locate(digests)
    report(name, total, total, f"{total - done:,} known from earlier runs" if done < total else "")
    return digests


def _of_size(
    parts: Iterable[tuple[Digests, pa.Table]], rows: int
) -> Iterator[tuple[Digests, pa.Table]]:
    """The same rows in parts of at least so many rows, the last one perhaps fewer."""
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
