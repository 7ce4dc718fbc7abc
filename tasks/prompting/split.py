"""Which split a row belongs to.

A project goes to a split by a hash of its name, so new rows and new projects never move old ones,
and code that was trained on is never tested on. Validation is taken from one end of the hash's
range and test from the other, so that changing one share moves no project between the two.

Duplicates are removed before, so no two rows here are equal; but rows may be tied by way of one
that was removed. Where such a cluster reaches into several projects and so into several splits,
only its rows in the first of train, validation and test stay (`apart`).
"""

import numpy as np
from numpy.typing import NDArray

from tasks.core.rows.hash_rank import RANKS, hash_rank

SPLITS = ("train", "validation", "test")


def split_of(project: str, validation_share: float, test_share: float, seed: int) -> str:
    """The split of a project: "train", "validation" or "test"."""
    place = int.from_bytes(hash_rank(seed, project), "big") / RANKS
    if place < test_share:
        return "test"
    return "validation" if place >= 1 - validation_share else "train"


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
