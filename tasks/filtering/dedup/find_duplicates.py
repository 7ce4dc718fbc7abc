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

from tasks.filtering.dedup.exact_dedup import Numbers, in_shared_group
from tasks.filtering.dedup.near_dedup import NO_TWIN, NearCandidates, NearSearch


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
    order: Numbers,
    passes: NDArray[np.bool_],
    exact: Sequence[Numbers],
    near: NearCandidates | None = None,
) -> Duplicates:
    """For each row the kept rows that it is a duplicate of.

    Args:
        order: All row numbers, best first: who is kept.
        passes: Rows that no other rule rejects; only they can be kept.
        exact: For each kind of text a group number per row; rows of one group have the same text.
        near: For near duplicates; None: only exact ones.
    """
    total = len(order)
    keepers = [np.full(int(g.max(initial=-1)) + 1, NO_TWIN, np.int64) for g in exact]
    search = NearSearch(near, order) if near else None
    clusters = _Clusters(total)
    # most rows share neither a text nor a band with another row and skip the loop
    involved = search.is_candidate.copy() if search else np.zeros(total, dtype=bool)
    for groups in exact:
        involved |= in_shared_group(groups)
    for row in order[passes[order] & involved[order]].tolist():
        found = [int(keeper[groups[row]]) for keeper, groups in zip(keepers, exact, strict=True)]
        found = [twin for twin in found if twin != NO_TWIN]
        found += search.look_up(row) if search else []
        for twin in found:
            clusters.join(row, twin)
        if not found:
            for keeper, groups in zip(keepers, exact, strict=True):
                keeper[groups[row]] = row
            if search:
                search.keep(row)
    alone = np.flatnonzero(passes & ~involved)
    for keeper, groups in zip(keepers, exact, strict=True):
        keeper[groups[alone]] = alone
    if search:
        for row in order[~passes[order] & involved[order]].tolist():
            search.look_up(row)  # rejected for another reason, and a duplicate too
    numbers = np.arange(total)
    twins = [keeper[groups] for keeper, groups in zip(keepers, exact, strict=True)]
    return Duplicates(
        [np.where(twin == numbers, NO_TWIN, twin) for twin in twins],
        search.twins if search else np.full(total, NO_TWIN, np.int64),
        search.similarity if search else np.zeros(total),
        search.similarity >= near.jaccard if search and near else np.zeros(total, dtype=bool),
        clusters.roots(),
        search.verified if search else 0,
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
