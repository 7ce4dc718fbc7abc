"""What a model wrote, and what became of it, remembered for as long as the model is kept.

One SQLite file a model, beside the artifacts, called after its digest. A text is known by all that
made it: model, prompt, decoding, the code that generates and the libraries below it. A verdict by
program, tests, limits and the sandbox's own code. So 20 more problems, or another scorer, generate
nothing again, and a killed run goes on where it was. Safe to delete at any time.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tasks.core.cache.cache_key import canonical, version
from tasks.core.cache.code_digest import closure, code_digest
from tasks.core.cache.digest_cache import Memo
from tasks.core.cache.store import KEY_DIGITS
from tasks.evaluation.generation.continuous_batching import Generated

GENERATION = "tasks.evaluation.generation.generate:generate"
LOADING = "tasks.core.models.loading:load_model"
SANDBOX = "tasks.core.sandbox.runner:Sandbox"
LIBRARIES = ("bitsandbytes", "peft", "torch", "transformers")
_SCHEMA = "create table if not exists memory (key text primary key, value text) without rowid"
_AT_ONCE = 500  # a query takes a limited number of values


class Memory:
    """Remembered values by key; without a file it remembers nothing.

    Args:
        path: The file; made if it is not there. One that can't be used costs only the memory.
        model: Digest of the model.
    """

    def __init__(self, path: Path | None, model: str = "") -> None:
        self.model = model
        self._connection = _open(path) if path else None

    @classmethod
    def of(cls, folder: Path | None, digest: str, *how: str) -> "Memory":
        """The memory of a model.

        Args:
            folder: Of all of them; None: nothing is remembered.
            digest: Of the output that makes the model what it is.
            how: What else its texts hang on, such as the base below an adapter.
        """
        path = folder / f"{digest[:KEY_DIGITS]}.sqlite" if folder else None
        return cls(path, key_of(model=[digest, *how]))

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """What is remembered of these."""
        if self._connection is None:
            return {}
        wanted, found = list(dict.fromkeys(keys)), {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            try:
                rows = self._connection.execute(
                    f"select key, value from memory where key in ({marks})", some
                ).fetchall()
            except sqlite3.Error:
                return {}
            found.update({key: json.loads(value) for key, value in rows})
        return found

    def put(self, values: Mapping[str, Any]) -> None:
        """Remember, at once, so that a kill loses nothing that is finished."""
        if self._connection is None or not values:
            return
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        try:
            with self._connection:
                self._connection.executemany("insert or replace into memory values (?, ?)", rows)
        except sqlite3.Error:
            return  # a full disk costs only the memory

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()


def _open(path: Path) -> sqlite3.Connection | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=30)
        # what a power cut may lose is made again
        connection.execute("pragma synchronous = off")
        connection.execute(_SCHEMA)
    except (OSError, sqlite3.Error):
        return None
    return connection


def key_of(**parts: Any) -> str:
    """A key made of everything that decides a value."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


@cache
def maker(reference: str, libraries: tuple[str, ...] = ()) -> str:
    """Digest of the code that "module:function" can reach, with versions of libraries."""
    with Memo(None) as memo:
        code = code_digest(closure(reference, memo))
    return key_of(code=code, versions={name: version(name) for name in libraries})


def to_plain(generated: Generated) -> list[Any]:
    """A text as it is remembered."""
    return [list(generated.ids), generated.tokens, generated.stopped]


def from_plain(raw: list[Any]) -> Generated:
    """The text that `to_plain` was given."""
    return Generated(tuple(raw[0]), raw[1], raw[2])
