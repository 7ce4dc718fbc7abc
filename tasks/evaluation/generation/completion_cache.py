"""Completion cache: what a model generated, and the outcomes of those programs, across runs.

One SQLite file per model, named by its digest and kept as long as the model. A completion's key has
all that determines it: model, prompt, decoding, the code that generates and the versions of its
libraries. An outcome's key has program, tests, limits and the sandbox's code. More problems or
another scorer therefore generate nothing again, and a killed run continues where it stopped. Safe
to delete at any time.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tasks.core.cache.cache_key import canonical
from tasks.core.cache.code_digest import closure, code_digest
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.store import KEY_DIGITS
from tasks.core.package_version import version
from tasks.core.system.sqlite_cache import SqliteCache

GENERATION = "tasks.evaluation.generation.generate:generate"
LOADING = "tasks.core.models.loading:load_model"
SANDBOX = "tasks.core.sandbox.runner:Sandbox"
LIBRARIES = ("bitsandbytes", "peft", "torch", "transformers")
_AT_ONCE = 500  # SQLite limits the number of parameters of a query


class CompletionCache:
    """JSON values by key; without a file it stores nothing.

    Args:
        path: The file, created if missing. One that can't be used disables the cache, no more.
        model: Key of the model.
    """

    def __init__(self, path: Path | None, model: str = "") -> None:
        self.model = model
        # not synchronous: values that a power cut loses are computed again
        self._stored = SqliteCache(
            path, "memory", "key text primary key, value text", timeout_s=30, synchronous=False
        )

    @classmethod
    def of(cls, folder: Path, digest: str, *how: str) -> "CompletionCache":
        """The cache of a model.

        Args:
            folder: Of all caches.
            digest: Of the output that identifies the model.
            how: What else determines its texts, such as the base of an adapter.
        """
        return cls(folder / f"{digest[:KEY_DIGITS]}.sqlite", key_of(model=[digest, *how]))

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The stored values of these keys."""
        wanted, found = list(dict.fromkeys(keys)), {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            places = ",".join("?" * len(some))
            rows = self._stored.select("key, value", f"key in ({places})", some)
            found.update({key: json.loads(value) for key, value in rows})
        return found

    def put(self, values: Mapping[str, Any]) -> None:
        """Store values in one transaction, so that a kill loses nothing that is finished."""
        self._stored.replace((key, json.dumps(value)) for key, value in values.items())

    def close(self) -> None:
        """Close the file."""
        self._stored.close()


def key_of(**parts: Any) -> str:
    """Digest of everything that determines a value."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


@cache
def maker(reference: str, libraries: tuple[str, ...] = ()) -> str:
    """Digest of the code that "module:function" can reach, with versions of libraries."""
    with DigestCache(None) as digests:
        code = code_digest(closure(reference, digests))
    return key_of(code=code, versions={name: version(name) for name in libraries})
