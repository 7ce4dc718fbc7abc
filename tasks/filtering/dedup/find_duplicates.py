"""Which rows are kept of those that duplicate each other, and clusters of related rows.

Rows that pass every other rule are taken in a fixed order, best first; a row is kept unless a kept
one is its exact or verified near twin. So the result does not depend on the order of the rows or
the number of workers, every row dropped here has a twin that is kept, no group loses all its rows,
and no two kept rows are a verified pair. Keeping one row per connected component would be shorter,
but components chain thousands of unlike rows together, and unverified candidates more so.

Components of the pairs found are still returned, as `clusters`: train and test must not share one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.filtering.dedup.exact_dedup import ExactSearch, Numbers
from tasks.filtering.dedup.near_dedup import NearCandidates, NearSearch


@dataclass(frozen=True)
class Duplicates:
    """The duplicates, one entry per row.

    Attributes:
        exact: For each kind of text the kept row that has the same one, else `NO_TWIN`.
        near: The most similar kept row of those compared, else `NO_TWIN`.
        similarity: True Jaccard similarity to `near`; it may be below the threshold.
        is_near: Whether it reaches the threshold.
        clusters: Number of the first row of the component that the row belongs to.
        verified: Pairs whose true similarity was computed.
    """

    exact: list[Numbers]
    near: Numbers
    similarity: NDArray[np.float64]
    is_near: NDArray[np.bool_]
    clusters: Numbers
    verified: int


def find_duplicates(
    order: Numbers, passes: NDArray[np.bool_], exact: Sequence[Numbers], near: NearCandidates
) -> Duplicates:
    """For each row the kept rows that it is a duplicate of.

    Args:
        order: All row numbers, best first: who is kept.
        passes: Rows that no other rule rejects; only they can be kept.
        exact: For each kind of text a group number per row; rows of one group have the same text.
        near: Candidates for near duplicates.
    """
    texts, search = ExactSearch(exact, len(order)), NearSearch(near, order)
    clusters = _Clusters(len(order))
    # most rows share neither a text nor a band with another row and skip the loop
    involved = texts.is_candidate | search.is_candidate
    for row in order[passes[order] & involved[order]].tolist():
        found = texts.look_up(row) + search.look_up(row)
        for twin in found:
            clusters.join(row, twin)
        if not found:
            texts.keep(row)
            search.keep(row)
    texts.keep(np.flatnonzero(passes & ~involved))
    for row in order[~passes[order] & involved[order]].tolist():
        search.look_up(row)  # rejected for another reason, and a duplicate too
    return Duplicates(
        texts.twins(),
        search.twins,
        search.similarity,
        search.similarity >= near.jaccard,
        clusters.roots(),
        search.verified,
    )


class _Clusters:
    """Union-find over row numbers; the root of a component is its first row."""

    def __init__(self, total: int) -> None:
        self._parents = np.arange(total)

    def join(self, one: int, other: int) -> None:
        """Put two rows into one component."""
        one, other = self._root(one), self._root(other)
        self._parents[max(one, other)] = min(one, other)

    def _root(self, row: int) -> int:
        parents = self._parents
        while (parent := int(parents[row])) != row:
            parents[row] = row = int(parents[parent])  # halve the path for later look-ups
        return row

    def roots(self) -> Numbers:
        """For each row the first row of its component."""
        parents = self._parents
        while not np.array_equal(above := parents[parents], parents):
            parents = above
        return parents
