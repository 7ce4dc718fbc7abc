"""Folders of the row cache: locking one for a run, and listing the old ones.

Standard library only, because `finetune gc` uses it, too.
"""

import os
from pathlib import Path
from typing import IO

from tasks.core.system.file_lock import is_locked, try_lock

ROOT = ".shards"  # below artifacts/; then the stage
KEEP = 2  # folders of a stage that a run keeps: going back to the settings before costs nothing
LOCK = ".lock"


def hold(place: Path) -> IO[str] | None:
    """Lock a folder; None if another run holds it or it can't be written.

    Returns:
        The locked file; closing it releases the folder.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / LOCK).open("a")
    except OSError:
        return None
    try:
        if try_lock(lock):
            os.utime(place)  # the time of last use, by which `old_folders` sorts
            return lock
    except OSError:  # a file system without locks, or a folder of another user
        pass
    lock.close()
    return None


def old_folders(stage: Path, keep: int) -> list[Path]:
    """Folders of a stage that may be removed: not the `keep` last used ones, nor those in use."""
    try:
        places = [Path(entry.path) for entry in os.scandir(stage) if entry.is_dir()]
    except OSError:
        return []
    places.sort(key=lambda place: (place.stat().st_mtime_ns, place.name), reverse=True)
    return [place for place in places[keep:] if not is_locked(place / LOCK)]
