"""Token ids waiting on disk until the packing plan knows their place: memory stays flat."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray


class Spool:
    """Rows of int32, appended one after another to a file, then read back in any order."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream = file.open("wb")
        self._lengths: list[int] = []
        self._tokens: NDArray[np.int32] | None = None
        self._ends: NDArray[np.int64] = np.zeros(1, dtype=np.int64)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._tokens = None
        self._file.unlink(missing_ok=True)

    def append(self, rows: Sequence[Sequence[int]]) -> None:
        """Add rows at the end."""
        lengths = list(map(len, rows))
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=sum(lengths))
        self._stream.write(flat.tobytes())
        self._lengths.extend(lengths)

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, in the order they were added."""
        return np.array(self._lengths, dtype=np.int64)

    def take(self, rows: Sequence[int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The tokens of `rows`, one after another, and the n + 1 places between them."""
        if self._tokens is None:
            self._stream.flush()
            self._tokens = np.memmap(self._file, dtype=np.int32, mode="r")
            self._ends = np.concatenate([[0], np.cumsum(self.lengths())])
        tokens, ends = self._tokens, self._ends
        parts = [tokens[ends[row] : ends[row + 1]] for row in rows]
        places = np.cumsum([0, *map(len, parts)], dtype=np.int32)
        return np.concatenate(parts), places
