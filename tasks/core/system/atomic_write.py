"""Atomic file writes: after a crash a file holds its old content or its new content, never a part.

The content goes to a temporary file in the same folder, because a rename is atomic only within one
file system. The rename comes last. For a power cut, two flushes are needed: of the file before the
rename (or the new name could point to an empty file), and of the folder after it.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace the content of a file; its folder is created if it is missing.

    Several processes may write the same file at once: the last rename wins. What a killed process
    leaves is a small file `NAME.PID.tmp`, which nothing reads.

    Args:
        path: The file.
        text: The new content, written as UTF-8.
        durable: Also survive a power cut, which costs two flushes of some milliseconds each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _replace(path, temporary, durable)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield the temporary path that a large file is to be written to; it gets its name at the end.

    Only one process may write the file. The temporary name is fixed, so that the next attempt
    overwrites the gigabytes that a killed process left; after an error they are removed at once.
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        yield temporary
        _replace(path, temporary, durable=True)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _replace(path: Path, temporary: Path, durable: bool) -> None:
    if durable:
        flush(temporary)
    temporary.replace(path)
    if durable:
        flush(path.parent)


def flush(path: Path) -> None:
    """Write a file, or the names in a folder, from the system's cache to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder; between two disks, copy it and rename the complete copy.

    A stage's folder may be a link to a disk with more space.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = target.with_name(f".{target.name}.part")
        shutil.rmtree(copy, ignore_errors=True)  # of a move that was killed
        shutil.copytree(source, copy, symlinks=True)
        for path in copy.rglob("*"):
            flush(path)
        copy.rename(target)
        shutil.rmtree(source)
