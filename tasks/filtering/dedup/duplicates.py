"""Duplicates, exact and near: which rows have a kept twin, and which rows belong together.

Exact: two rows share a text, whitespace and comments aside. Near: MinHash bands propose pairs, the
true Jaccard similarity of their n-grams decides.

Rows that pass every other rule are taken in a fixed order, best first; a row is kept unless a kept
one is its exact or verified near twin. So the survivors don't depend on the order of the rows or
the number of workers, every row dropped here has a twin that is kept, no group loses all its rows,
and no two kept rows are a verified pair. Removing all but one row of each connected component
would be shorter, but components chain thousands of unlike rows together, and unverified candidates
more so.

Components of the pairs found are still told, as `clusters`: what train and test must not share.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes, jaccard
from tasks.filtering.dedup.minhash import NO_KEY

KEY_BYTES = 16
NO_TWIN = -1
NO_GROUP = -1
MAX_CHECKS = 256  # proposed twins of a row that are checked, those that share most bands first

Numbers = NDArray[np.int64]

# a string (kept: it may hold #) or a comment
STRING_OR_COMMENT = re.compile(
    r'("""(?:[^"\\]|\\.|"(?!""))*"""'
    r"|'''(?:[^'\\]|\\.|'(?!''))*'''"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'(?:[^'\\\n]|\\.)*')"
    r"|#[^\n]*",
    re.DOTALL,
)


def text_key(text: str, is_python: bool) -> bytes:
    """Digest of a text without whitespace and, if it is Python, without comments."""
    if is_python and "#" in text:
        text = STRING_OR_COMMENT.sub(lambda match: match[1] or "", text)
    return blake2b("".join(text.split()).encode(), digest_size=KEY_BYTES).digest()


@dataclass(frozen=True)
class Near:
    """What the search for near duplicates needs.

    Attributes:
        keys: Band keys of shape (rows, bands).
        grams: Sorted set of n-grams of a row.
        least: Jaccard similarity from which two rows are duplicates.
    """

    keys: Hashes
    grams: Callable[[int], Hashes]
    least: float


@dataclass(frozen=True)
class Twins:
    """What was found, one entry a row.

    Attributes:
        exact: For each kind of text the kept row that has the same one, else `NO_TWIN`.
        near: The kept row that is most similar of those that were proposed, else `NO_TWIN`.
        similarity: True Jaccard similarity to `near`; it may lie below the threshold.
        is_near: Whether it does not.
        clusters: Number of the first row of the component that the row belongs to.
        verified: Pairs whose true similarity was worked out.
    """

    exact: list[Numbers]
    near: Numbers
    similarity: NDArray[np.float64]
    is_near: NDArray[np.bool_]
    clusters: Numbers
    verified: int


def find_twins(
    order: Numbers,
    passes: NDArray[np.bool_],
    exact: Sequence[Numbers],
    near: Near | None = None,
) -> Twins:
    """For each row the kept rows that it is a duplicate of.

    Args:
        order: All row numbers, best first: who survives.
        passes: Rows that no other rule rejects; only they can be kept.
        exact: For each kind of text a group number a row; rows of one group have the same text.
        near: For near duplicates; None: only exact ones.
    """
    total = len(order)
    holders = [np.full(int(g.max(initial=NO_GROUP)) + 1, NO_TWIN, np.int64) for g in exact]
    search = _Search(near, order) if near else None
    clusters = _Clusters(total)
    involved = _are_shared(exact, total) | (search.is_proposed if search else False)
    for row in order[passes[order] & involved[order]].tolist():
        found = [int(holder[groups[row]]) for holder, groups in zip(holders, exact, strict=True)]
        found = [twin for twin in found if twin != NO_TWIN]
        found += search.look_up(row) if search else []
        for twin in found:
            clusters.join(row, twin)
        if not found:
            for holder, groups in zip(holders, exact, strict=True):
                holder[groups[row]] = row
            if search:
                search.keep(row)
    alone = np.flatnonzero(passes & ~involved)
    for holder, groups in zip(holders, exact, strict=True):
        holder[groups[alone]] = alone
    if search:
        for row in order[~passes[order] & involved[order]].tolist():
            search.look_up(row)  # rejected for something else, and a duplicate too
    numbers = np.arange(total)
    twins = [holder[groups] for holder, groups in zip(holders, exact, strict=True)]
    return Twins(
        [np.where(twin == numbers, NO_TWIN, twin) for twin in twins],
        search.near if search else np.full(total, NO_TWIN, np.int64),
        search.similarity if search else np.zeros(total),
        search.similarity >= near.least if search and near else np.zeros(total, dtype=bool),
        clusters.roots(),
        search.verified if search else 0,
    )


def _are_shared(exact: Sequence[Numbers], total: int) -> NDArray[np.bool_]:
    """Rows that have the group of another row, for any kind of text."""
    shared = np.zeros(total, dtype=bool)
    for groups in exact:
        shared |= np.bincount(groups, minlength=1)[groups] > 1
    return shared


class _Search:
    """Kept rows by band, and the similarity of a row to those that share one with it."""

    def __init__(self, near: Near, order: Numbers) -> None:
        total = len(order)
        self._rank = np.empty(total, dtype=np.int64)
        self._rank[order] = np.arange(total)
        self._grams, self._least = near.grams, near.least
        self._starts, self._groups = _shared_bands(near.keys)
        self._kept: dict[int, list[int]] = {}
        self.is_proposed = np.diff(self._starts) > 0
        self.near = np.full(total, NO_TWIN, np.int64)
        self.similarity = np.zeros(total)
        self.verified = 0

    def look_up(self, row: int) -> list[int]:
        """Kept rows that are near duplicates of a row; the best one is noted."""
        bands = Counter(twin for group in self._of(row) for twin in self._kept.get(group, ()))
        if not bands:
            return []
        proposed = sorted(bands, key=lambda twin: (-bands[twin], self._rank[twin]))[:MAX_CHECKS]
        own = self._grams(row)
        found = [(jaccard(own, self._grams(twin)), twin) for twin in proposed]
        self.verified += len(found)
        similarity, twin = max(found, key=lambda pair: pair[0])
        self.similarity[row], self.near[row] = similarity, twin
        return [twin for similarity, twin in found if similarity >= self._least]

    def keep(self, row: int) -> None:
        """Let later rows find this one."""
        for group in self._of(row):
            self._kept.setdefault(group, []).append(row)

    def _of(self, row: int) -> list[int]:
        return self._groups[self._starts[row] : self._starts[row + 1]].tolist()  # type: ignore[no-any-return]


def _shared_bands(keys: Hashes) -> tuple[Numbers, Numbers]:
    """The bands that a row shares with another row, as numbers of groups: row i has those from
    starts[i] to starts[i + 1]."""
    total, bands = keys.shape
    low_bits = np.uint64((1 << (total.bit_length() + 3)) - 1)
    rows, groups, next_group = [], [], 0
    for band in range(bands):
        column = np.ascontiguousarray(keys[:, band])
        # most rows are alone with the low bits of their key already, and need no sorting
        low = (column & low_bits).astype(np.int64)
        near = np.flatnonzero((np.bincount(low) > 1)[low])
        column = column[near]
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        same = np.zeros(len(near) + 1, dtype=bool)
        same[1:-1] = (ordered[1:] == ordered[:-1]) & (ordered[1:] != NO_KEY)
        is_shared = same[:-1] | same[1:]
        members = near[order[is_shared]]
        group = np.cumsum(~same[:-1][is_shared]) + next_group
        next_group = int(group[-1]) if len(group) else next_group
        rows.append(members)
        groups.append(group)
    row, group = (
        np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in (rows, groups)
    )
    by_row = np.argsort(row, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=total))])
    return starts.astype(np.int64), group[by_row].astype(np.int64)


class _Clusters:
    """Union-find over row numbers."""

    def __init__(self, total: int) -> None:
        self._parents = np.arange(total)

    def join(self, one: int, other: int) -> None:
        """Let two rows belong together."""
        one, other = self._root(one), self._root(other)
        self._parents[max(one, other)] = min(one, other)

    def _root(self, row: int) -> int:
        parents = self._parents
        while (parent := int(parents[row])) != row:
            parents[row] = row = int(parents[parent])
        return row

    def roots(self) -> Numbers:
        """For each row the first row of its component."""
        parents = self._parents
        while not np.array_equal(above := parents[parents], parents):
            parents = above
        return parents
