"""Which split a row belongs to.

A project goes to a split by a hash of its name, so new rows and new projects never move old ones,
and code that was trained on is never tested on. Validation is taken from one end of the hash's
range and test from the other, so that changing one share moves no project between the two.

Rows with equal instructions or outputs can't fall apart across splits: exact duplicates are removed
before, across projects, so no two rows here are equal in either.
"""

import hashlib
from collections.abc import Iterable, Sequence
from heapq import nsmallest

SPLITS = ("train", "validation", "test")


def split_of(project: str, validation_share: float, test_share: float, seed: int) -> str:
    """The split of a project: "train", "validation" or "test"."""
    place = _hash(f"{seed}\0{project}") / 2**64
    if place < test_share:
        return "test"
    return "validation" if place >= 1 - validation_share else "train"


def choose(row_ids: Sequence[str], indexes: Iterable[int], at_most: int, seed: int) -> list[int]:
    """At most so many of `indexes`, by a hash of the rows' ids, in the order they stand.

    A row that is added pushes out at most one other.
    """
    chosen = nsmallest(at_most, indexes, key=lambda i: (_hash(f"{seed}\0{row_ids[i]}"), row_ids[i]))
    return sorted(chosen)


def _hash(text: str) -> int:
    """64 bits that any machine and any version of Python agree on."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
