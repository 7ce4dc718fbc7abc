"""Digests of files, remembered by (path, size, modification time, inode), so that planning over
many gigabytes is fast.

A file whose stat moved is digested again; a file that was only touched has the same digest and
stays a hit. A file that changed a moment ago is not remembered yet: clocks of file systems are
coarse, and a second change within the same tick that keeps the size could not be told. The memory
is a SQLite file beside the artifacts: shared by processes, safe to delete at any time.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from tasks.core.system.sqlite_cache import SqliteCache

SETTLED_NS = 2_000_000_000  # the coarsest file systems count times in steps of two seconds
COLUMNS = """
    kind text, path text, size integer, mtime_ns integer, inode integer, value text,
    primary key (kind, path)
"""

Values = dict[tuple[str, str], tuple[int, int, int, str]]  # (kind, path) -> stat, value


class Memo:
    """Remembered values of files, each computed by a function of the path."""

    def __init__(self, database: Path | None) -> None:
        """Open `database`; None, or a folder that can't be written, means remembering nothing."""
        self._stored = SqliteCache(database, "memo", COLUMNS)
        rows = self._stored.select("kind, path, size, mtime_ns, inode, value")
        self._seen: Values = {(kind, path): tuple(value) for kind, path, *value in rows}
        self._new: Values = {}

    def recall(self, kind: str, path: Path, compute: Callable[[Path], str]) -> str:
        """The value of `path` for `kind`; computed only if the file's stat has moved."""
        stat = path.stat()
        stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        name = (kind, str(path))
        known = self._seen.get(name)
        if known and known[:3] == stamp:
            return known[3]
        value = compute(path)
        if abs(time.time_ns() - stat.st_mtime_ns) > SETTLED_NS:
            self._seen[name] = self._new[name] = (*stamp, value)
        return value

    def digest(self, path: Path) -> str:
        """sha256 of a file's content, hex."""
        return self.recall("sha256", path, sha256)

    def save(self) -> None:
        """Write what was newly computed."""
        if self._stored.replace((*name, *value) for name, value in self._new.items()):
            self._new.clear()

    def __enter__(self) -> "Memo":
        return self

    def __exit__(self, *_: object) -> None:
        self.save()
        self._stored.close()


def sha256(path: Path) -> str:
    """sha256 of a file's content, hex, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
