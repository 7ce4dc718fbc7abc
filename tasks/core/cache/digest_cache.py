"""Digests of files, remembered by (path, size, modification time, inode), so that planning over
many gigabytes is fast.

A file whose stat moved is digested again; a file that was only touched has the same digest and
stays a hit. A file that changed a moment ago is not remembered yet: clocks of file systems are
coarse, and a second change within the same tick that keeps the size could not be told. The memory
is a SQLite file beside the artifacts: shared by processes, safe to delete at any time.
"""

import hashlib
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

SETTLED_NS = 2_000_000_000  # the coarsest file systems count times in steps of two seconds
SCHEMA = """
create table if not exists memo (
    kind text, path text, size integer, mtime_ns integer, inode integer, value text,
    primary key (kind, path)
) without rowid
"""


Values = dict[tuple[str, str], tuple[int, int, int, str]]  # (kind, path) -> stat, value


class Memo:
    """Remembered values of files, each computed by a function of the path."""

    def __init__(self, database: Path | None) -> None:
        """Open `database`; None, or a folder that can't be written, means remembering nothing."""
        self._connection, self._seen = _open(database)
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
        if not self._connection or not self._new:
            return
        rows = [(*name, *value) for name, value in self._new.items()]
        try:
            with self._connection:
                self._connection.executemany(
                    "insert or replace into memo values (?, ?, ?, ?, ?, ?)", rows
                )
        except sqlite3.Error:
            return  # a full disk or a read-only folder costs only the memory
        self._new.clear()

    def __enter__(self) -> "Memo":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.save()
        if self._connection:
            self._connection.close()


def _open(database: Path | None) -> tuple[sqlite3.Connection | None, Values]:
    """The database and what it holds; nothing of either where it can't be read or written.

    A torn one is removed: the next process starts another.
    """
    if database is None:
        return None, {}
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(database, timeout=10)
    except (OSError, sqlite3.Error):
        return None, {}
    try:
        connection.execute(SCHEMA)
        rows = connection.execute("select kind, path, size, mtime_ns, inode, value from memo")
        return connection, {(kind, path): tuple(value) for kind, path, *value in rows}
    except sqlite3.Error as error:
        connection.close()
        if not isinstance(error, sqlite3.OperationalError):  # that is: locked, full, read-only
            with suppress(OSError):
                database.unlink()
        return None, {}


def sha256(path: Path) -> str:
    """sha256 of a file's content, hex, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
