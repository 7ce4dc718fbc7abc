"""Ranks by hash: selecting, ordering and splitting rows by a hash of their ids.

A rank is as good as a random number, but it depends only on the row's id and a seed: on no other
row, on no order, and on no random state. So a new row changes a selection by at most one row, and
a larger share or limit only adds rows to it. BLAKE2 gives the same hash on every machine and with
every version of Python.

The parts of a hash decide which rows are selected: changing them changes every stored result.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from heapq import nsmallest

import numpy as np
from numpy.typing import NDArray

RANKS = 2**64  # ranks of 8 bytes as integers are below this


def hash_rank(*parts: object, size: int = 8) -> bytes:
    """`size` bytes of hash of a seed and an id, for example. Bytes compare like the integers that
    they are in big-endian order."""
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=size).digest()


def keyed_rank(name: str, seed: int) -> bytes:
    """The rank that the evaluation selects problems and rows by: the seed is the hash's key."""
    return blake2b(name.encode(), key=seed.to_bytes(8, "big"), digest_size=16).digest()


def id_rank(row_id: str) -> int:
    """A row id as its own rank, below `RANKS`: ids are hashes in hex. There is no seed to it."""
    return int(row_id[:16], 16)


def choose(row_ids: Sequence[str], indexes: Iterable[int], at_most: int, seed: int) -> list[int]:
    """At most `at_most` of `indexes`, those of the lowest ranks, in ascending order.

    Args:
        row_ids: Of all rows.
        indexes: The rows to choose from.
        at_most: How many to choose.
        seed: Another seed chooses other rows.
    """
    return sorted(
        nsmallest(at_most, indexes, key=lambda i: (hash_rank(seed, row_ids[i]), row_ids[i]))
    )


def shuffled(row_ids: Iterable[str], seed: int) -> NDArray[np.int64]:
    """Indexes of all rows in the order of their ranks, whatever order the rows came in."""
    # `hash_rank` of the seed and each id, written out: it is called for every row
    names = (f"{seed}\0{row_id}".encode() for row_id in row_ids)
    content = b"".join([blake2b(name, digest_size=16).digest() for name in names])
    ranks = np.frombuffer(content, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return np.lexsort((ranks[:, 1], ranks[:, 0])).astype(np.int64)
