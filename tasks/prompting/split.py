"""Which split a row belongs to.

A project goes to a split by a hash of its name, so new rows and new projects never move old ones,
and code that was trained on is never tested on. Validation is taken from one end of the hash's
range and test from the other, so that changing one share moves no project between the two.

Duplicates are removed before, so no two rows here are equal; but rows may be tied by way of one
that was removed. Where such a cluster reaches into several projects and so into several splits,
only its rows in the first of train, validation and test stay (`apart`).
"""

import hashlib
from collections.abc import Iterable, Sequence
from heapq import nsmallest

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")


def split_of(project: str, validation_share: float, test_share: float, seed: int) -> str:
    """The split of a project: "train", "validation" or "test"."""
    place = _hash(f"{seed}\0{project}") / 2**64
    if place < test_share:
        return "test"
    return "validation" if place >= 1 - validation_share else "train"


def place_of(row_id: str, seed: int) -> tuple[int, str]:
    """Where a row stands in an order that depends on seed and ids alone."""
    return _hash(f"{seed}\0{row_id}"), row_id


def choose(row_ids: Sequence[str], indexes: Iterable[int], at_most: int, seed: int) -> list[int]:
    """At most so many of `indexes`, by a hash of the rows' ids, in the order they stand.

    A row that is added pushes out at most one other.
    """
    chosen = nsmallest(at_most, indexes, key=lambda i: place_of(row_ids[i], seed))
    return sorted(chosen)


def _hash(text: str) -> int:
    """64 bits that any machine and any version of Python agree on."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def apart(places: NDArray[np.int8], clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows must go so that no cluster is in two splits.

    Args:
        places: Each row's split, as its number in `SPLITS`; negative: in none, and ties nothing.
        clusters: Each row's cluster, 0, 1, 2 ...
    """
    first = np.full(int(clusters.max(initial=-1)) + 1, len(SPLITS), dtype=np.int8)
    there = places >= 0
    np.minimum.at(first, clusters[there], places[there])
    leaves: NDArray[np.bool_] = there & (places != first[clusters])
    return leaves
