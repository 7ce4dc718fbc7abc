"""Rows known by their content: the digest of each, and where a digest stands in a list of them."""

import marshal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

Digests = NDArray[np.uint64]  # of shape (rows, 2)


def row_digests(table: pa.Table) -> Digests:
    """128 bits of each row's content, all columns (text, numbers or bytes) taken together.

    By XXH3, as `datasets` takes its fingerprints: two rows of a million have the same by chance
    once in 10^26 runs. Who builds rows to that end gives one of them the values of the other.
    """
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    # marshal's first format: each value with its type and length, the same on every Python
    digests = [xxh3_128_digest(marshal.dumps(row, 0)) for row in rows]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


class Index:
    """Digest -> place in a list of digests."""

    def __init__(self, digests: Digests) -> None:
        """Put them in order."""
        self._order = np.argsort(digests[:, 0], kind="stable")
        self._high = digests[self._order, 0]
        self._low = digests[self._order, 1]

    def find(self, digests: Digests) -> NDArray[np.int64]:
        """The place of each digest, -1 for one that is not there."""
        if not len(self._order):
            return np.full(len(digests), -1, dtype=np.int64)
        near = np.searchsorted(self._high, digests[:, 0]).clip(max=len(self._order) - 1)
        same = (self._high[near] == digests[:, 0]) & (self._low[near] == digests[:, 1])
        return np.where(same, self._order[near], -1)
