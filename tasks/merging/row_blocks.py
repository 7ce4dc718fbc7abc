"""Blocks of rows, and tensors in parallel: how a model's weights are copied and converted.

An operation on a whole tensor of 10 million values moves each of them through the main memory, and
gets every temporary result from the system as new, zeroed pages. Blocks of rows that fit into the
cache of a core avoid both. PyTorch and numpy release the GIL, and some of their operations (random
numbers, conversions) run on one core only, so several tensors are processed at a time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from tasks.core.system.parallel import worker_count

BLOCK_VALUES = 1 << 18  # 1 MiB in 32 bit
MAX_THREADS = 4  # each holds a tensor

T = TypeVar("T")
R = TypeVar("R")


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Consecutive blocks of the rows of a matrix, each of at most `BLOCK_VALUES` or one row."""
    size = max(1, BLOCK_VALUES // max(1, columns))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `function(item)` for each item, in their order, computed by several threads.

    No more results than threads are waiting to be yielded.
    """
    threads, previous = min(MAX_THREADS, worker_count(0)), torch.get_num_threads()
    waiting: deque[Future[R]] = deque()
    torch.set_num_threads(1)  # of each operation; threads that start now inherit it
    try:
        with ThreadPoolExecutor(threads) as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(function, item))
                    if len(waiting) == threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(previous)
