"""File locks (`flock`) between processes.

The kernel releases a lock when its file is closed, and so however a process ends: after a crash
nothing has to be cleaned up. A lock file is never deleted while it may be in use, because two
processes could then hold locks on two files of the same name.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(
    path: Path, waiting: Callable[[], None] = lambda: None, shared: bool = False
) -> Iterator[None]:
    """Hold the lock at `path`; wait for it as long as it takes.

    Args:
        path: The lock file; created if it does not exist.
        waiting: Called once if another process holds the lock.
        shared: Together with other shared holders, but with no exclusive one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not try_lock(file, shared):
            waiting()
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock at `path` if no other process holds it; yields whether it is held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield try_lock(file)


def try_lock(file: IO[str], shared: bool = False) -> bool:
    """Lock an open file until it is closed; False if another process holds the lock."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock at `path`."""
    try:
        with path.open("r+") as file:
            return not try_lock(file)
    except FileNotFoundError:
        return False
