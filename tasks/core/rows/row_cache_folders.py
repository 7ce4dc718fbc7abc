"""Folders of shards: which one a run may write, and which may go. Knows nothing of what is in
them; the standard library alone, as `finetune gc` asks too."""

import os
from pathlib import Path
from typing import IO

from tasks.core.system.file_lock import is_locked, try_lock

ROOT = ".shards"  # below artifacts/, then the stage
KEEP = 2  # folders of a stage that a run leaves
LOCK = ".lock"


def hold(place: Path) -> IO[str] | None:
    """Take a folder as its only user; None if another run has it or it can't be written.

    Returns:
        A file; closing it, or the end of the process, gives the folder back.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / LOCK).open("a")
    except OSError:
        return None
    try:
        if try_lock(lock):
            os.utime(place)  # its last use
            return lock
    except OSError:  # a file system without locks, or a folder of another user
        pass
    lock.close()
    return None


def old_folders(stage: Path, keep: int) -> list[Path]:
    """Folders of a stage that may go: all but those used last, and those in use."""
    try:
        places = [Path(entry.path) for entry in os.scandir(stage) if entry.is_dir()]
    except OSError:
        return []
    places.sort(key=lambda place: (place.stat().st_mtime_ns, place.name), reverse=True)
    return [place for place in places[keep:] if not is_locked(place / LOCK)]
