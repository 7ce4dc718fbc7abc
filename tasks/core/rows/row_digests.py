"""Digests of rows by their content, and an index of digests."""

import marshal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

Digests = NDArray[np.uint64]  # of shape (rows, 2)


def row_digests(table: pa.Table) -> Digests:
    """128-bit digests of rows over all columns (text, numbers or bytes).

    XXH3, as `datasets` uses for its fingerprints: a collision among a million rows has a chance of
    1 in 10^26. It is not a cryptographic hash: rows that are built to collide share one value.
    """
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    # marshal's version 0 writes each value with its type and length, the same on every Python
    digests = [xxh3_128_digest(marshal.dumps(row, 0)) for row in rows]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


class DigestIndex:
    """Digest -> position in a list of digests, by binary search for their first halves.

    Rows that share the first half are looked through one by one: they are rare, but a row that is
    not found although it was stored would end the run.
    """

    def __init__(self, digests: Digests) -> None:
        """Sort the digests."""
        self._order = np.argsort(digests[:, 0], kind="stable")
        self._high = digests[self._order, 0]
        self._low = digests[self._order, 1]

    def find(self, digests: Digests) -> NDArray[np.int64]:
        """The position of each digest; -1 if it is not in the list."""
        if not len(self._order):
            return np.full(len(digests), -1, dtype=np.int64)
        at = np.searchsorted(self._high, digests[:, 0])
        last = len(self._order) - 1
        while True:
            near = at.clip(max=last)
            halves_equal = (self._high[near] == digests[:, 0]) & (at <= last)
            same = halves_equal & (self._low[near] == digests[:, 1])
            onward = halves_equal & ~same
            if not onward.any():
                return np.where(same, self._order[near], -1)
            at = at + onward
