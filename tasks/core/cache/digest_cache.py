"""Digest cache: values of files, keyed by (path, size, modification time, change time, inode).

Planning over many gigabytes is fast because only files whose stat changed are digested again. The
change time (ctime) cannot be set by a program: it reveals a file that was replaced or edited and
whose modification time was restored, as `tar`, `unzip -o` and `rsync -t` do. A file that changed a
moment ago is not cached yet, because file system clocks are coarse: a second change within the same
tick would be missed. The cache is an SQLite file next to the artifacts, shared by processes and
safe to delete.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from tasks.core.system.sqlite_cache import SqliteCache

SETTLED_NS = 2_000_000_000  # the coarsest file systems count time in steps of two seconds
READ_AHEAD = 64  # rows of one query: 1,000 queries of one row take 10 ms more of `finetune plan`
LAST_PATH = b"\xff"  # after all absolute paths
TABLE = "digests"
COLUMNS = """
    kind text, path blob, size integer, mtime_ns integer, ctime_ns integer, inode integer,
    value text, primary key (kind, path)
"""

Stamp = tuple[int, int, int, int]


class DigestCache:
    """Cached values of files, each computed by a function of the path."""

    def __init__(self, database: Path | None) -> None:
        """Open `database`; with None, or a folder that is not writable, nothing is stored."""
        self._stored = SqliteCache(database, TABLE, COLUMNS)
        self._seen: dict[tuple[str, str], tuple[Stamp, str]] = {}
        self._new: set[tuple[str, str]] = set()
        # (kind, path) of the first and the last row of the last query: what lies between them and
        # was not seen is not stored
        self._read = ("", b""), ("", b"")

    def recall(self, kind: str, path: Path, compute: Callable[[Path], str]) -> str:
        """The value of `path` for `kind`; computed only if the file's stat has changed.

        Raises:
            OSError: The file can't be read, or is a pipe, whose reader may wait without end.
        """
        stat = path.stat()
        if not (S_ISREG(stat.st_mode) or S_ISDIR(stat.st_mode)):
            raise OSError(errno.EINVAL, "not a file", str(path))
        stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        name = (kind, str(path))
        known = self._seen.get(name) or self._look_up(*name)
        if known and known[0] == stamp:
            self._seen[name] = known
            return known[1]
        value = compute(path)
        now = time.time_ns()
        if min(abs(now - stat.st_mtime_ns), abs(now - stat.st_ctime_ns)) > SETTLED_NS:
            self._seen[name] = stamp, value
            self._new.add(name)
        return value

    def preload(self, prefix: str) -> None:
        """Read all stored values whose kind begins with `prefix`, in one query instead of many."""
        columns = "kind, path, size, mtime_ns, ctime_ns, inode, value"
        rows = self._stored.select(
            columns, "kind >= ? and kind < ?", (prefix, f"{prefix}\U0010ffff")
        )
        for kind, path, size, mtime_ns, ctime_ns, inode, value in rows:
            stamp = (size, mtime_ns, ctime_ns, inode)
            self._seen.setdefault((kind, os.fsdecode(path)), (stamp, value))

    def _look_up(self, kind: str, path: str) -> tuple[Stamp, str] | None:
        """The stored stamp and value. The rows after it are read in the same query, because files
        are looked up in the order of their paths; the whole table never is."""
        wanted = kind, os.fsencode(path)
        if not self._read[0] <= wanted <= self._read[1]:
            rows = self._stored.select(
                "path, size, mtime_ns, ctime_ns, inode, value",
                f"kind = ? and path >= ? order by path limit {READ_AHEAD}",
                wanted,
            )
            self._read = wanted, (kind, rows[-1][0] if len(rows) == READ_AHEAD else LAST_PATH)
            for stored, size, mtime_ns, ctime_ns, inode, value in rows:
                name = kind, os.fsdecode(stored)
                self._seen.setdefault(name, ((size, mtime_ns, ctime_ns, inode), value))
        return self._seen.get((kind, path))

    def digest(self, path: Path) -> str:
        """sha256 of a file's content, hex."""
        return self.recall("sha256", path, sha256)

    def forget(self, paths: Iterable[Path]) -> None:
        """Drop the values of files whose content was found to differ from its digest."""
        names = {str(path) for path in paths}
        self._seen = {name: value for name, value in self._seen.items() if name[1] not in names}
        self._new = {name for name in self._new if name[1] not in names}
        self._stored.delete("path = ?", [(os.fsencode(name),) for name in sorted(names)])

    def prune(self) -> int:
        """Drop the values of files that no longer exist; returns their number."""
        paths = [path for (path,) in self._stored.select("distinct path")]
        gone = [(path,) for path in paths if not os.path.lexists(path)]
        self._stored.delete("path = ?", gone)
        return len(gone)

    def save(self) -> None:
        """Write the new values."""
        rows = [(n[0], os.fsencode(n[1]), *self._seen[n][0], self._seen[n][1]) for n in self._new]
        if self._stored.replace(rows):
            self._new.clear()

    def __enter__(self) -> "DigestCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.save()
        self._stored.close()


def sha256(path: Path) -> str:
    """sha256 of a file's content, hex, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
