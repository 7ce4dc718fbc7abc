"""Folders of shards: which one a run may write, and which may go. Knows nothing of what is in
them; the standard library alone, as `finetune gc` asks too."""

import fcntl
import os
from pathlib import Path

ROOT = ".shards"  # below artifacts/, then the stage
KEEP = 2  # folders of a stage that a run leaves
LOCK = ".lock"


def hold(place: Path) -> int | None:
    """Take a folder as its only user; None if another run has it or it can't be written.

    Returns:
        A descriptor; closing it, or the end of the process, gives the folder back.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.utime(place)  # its last use
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def old_folders(stage: Path, keep: int) -> list[Path]:
    """Folders of a stage that may go: all but those used last, and those in use."""
    try:
        places = [Path(entry.path) for entry in os.scandir(stage) if entry.is_dir()]
    except OSError:
        return []
    places.sort(key=lambda place: (place.stat().st_mtime_ns, place.name), reverse=True)
    return [place for place in places[keep:] if _is_free(place)]


def _is_free(place: Path) -> bool:
    try:
        descriptor = os.open(place / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
