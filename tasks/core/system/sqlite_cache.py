"""A cache table in an SQLite file: shared by processes, safe to delete at any time.

A file that cannot be used costs only the cached values. A locked file, a full disk or a read-only
folder makes reads find nothing and writes store nothing; a damaged file is removed, so that the
next process starts a new one.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

Row = Sequence[Any]


class SqliteCache:
    """One table of an SQLite file.

    Args:
        path: The file; created if it does not exist. None: nothing is cached.
        table: The table's name.
        columns: Its columns and its primary key, as in a `create table` statement.
        timeout_s: How long to wait for another process that writes.
        synchronous: Wait for the disk after each write. Without it, a power cut can damage the
            file, but many small writes are fast.
    """

    def __init__(
        self,
        path: Path | None,
        table: str,
        columns: str,
        *,
        timeout_s: float = 10,
        synchronous: bool = True,
    ) -> None:
        self._path, self._table = path, table
        self._connection: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=timeout_s)
            if not synchronous:
                self._connection.execute("pragma synchronous = off")
            self._connection.execute(
                f"create table if not exists {table} ({columns}) without rowid"
            )
        except (OSError, sqlite3.Error) as error:
            self.close()
            self._remove_damaged(error)

    def select(self, columns: str, where: str = "true", values: Row = ()) -> list[Row]:
        """The columns of the rows that meet a condition; none if the file can't be read."""
        if self._connection is None:
            return []
        query = f"select {columns} from {self._table} where {where}"
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._remove_damaged(error)
            return []

    def replace(self, rows: Iterable[Row]) -> bool:
        """Insert or replace whole rows in one transaction; False if that failed."""
        rows = list(rows)
        if self._connection is None or not rows:
            return False
        places = ", ".join("?" * len(rows[0]))
        try:
            with self._connection:
                self._connection.executemany(
                    f"insert or replace into {self._table} values ({places})", rows
                )
        except sqlite3.Error:
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _remove_damaged(self, error: Exception) -> None:
        """Remove the file if the error says that it is damaged.

        SQLite raises exactly `DatabaseError` for that, and subclasses for whatever may pass: a
        file that is locked or read-only, a full disk.
        """
        if self._path is not None and type(error) is sqlite3.DatabaseError:
            self.close()
            with suppress(OSError):
                self._path.unlink()
