"""Parallel map: a pure function over many chunks in worker processes, results in order.

The results are the same for any number of workers. Only a few chunks are in flight, so memory does
not grow with their number. Workers are spawned, not forked, because the caller may have threads
(Prefect) or a CUDA context, which do not survive a fork.
"""

import gc
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")
_STARTING = Lock()  # held while a worker process starts


def worker_count(workers: int) -> int:
    """Number of processes for `hardware.workers`; 0: one for each core this process may use."""
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(function: Callable[[T], R], chunks: Iterable[T], workers: int) -> Iterator[R]:
    """Yield `function(chunk)` for each chunk, in order; with one worker in this process.

    Args:
        function: Importable by name, with arguments and results that pickle.
        chunks: Read lazily.
        workers: Number of processes; at most 1 means none.
    """
    if workers <= 1:
        yield from map(function, chunks)
        return
    # 30 ms that `finetune plan` does not need
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    waiting: deque[Future[R]] = deque()
    source = iter(chunks)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:

        def submit(chunk: T) -> None:
            with _without_main():
                waiting.append(pool.submit(function, chunk))

        try:
            for chunk in islice(source, 2 * workers):
                submit(chunk)
            while waiting:
                yield waiting.popleft().result()
                for chunk in islice(source, 1):
                    submit(chunk)
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep workers that start in this block from importing this process's main module.

    They need nothing from it, and importing the command line or Prefect takes longer than all their
    other imports. Only one thread at a time, or two could restore each other's replacement.
    """
    with _STARTING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextmanager
def without_gc() -> Iterator[None]:
    """Pause the garbage collector while syntax trees or rows are built: they have no reference
    cycles, and searching for some takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
