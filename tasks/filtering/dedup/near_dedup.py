"""Near duplicates: rows that share a MinHash band are candidates; the true Jaccard similarity of
their n-grams decides, of the questions and of the answers, and both must be similar.

N-grams that many rows share (a preamble, a schema, a list of tools) say nothing about a pair and do
not count. They would also put all of these rows into the same bands, and comparing each with each
takes time that grows with the square of their number. So bands of more than `CROWD` rows are left
out, and their rows get new ones, from the n-grams that few rows share.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes, jaccard
from tasks.core.progress import report
from tasks.core.rows.disk_arrays import DiskArrays
from tasks.core.rows.row_cache_shards import BLOCK_ROWS
from tasks.filtering.dedup.exact_dedup import NO_TWIN, Numbers
from tasks.filtering.dedup.minhash import NO_KEY

MAX_CHECKS = 256  # candidates compared per row, those that share most bands first
CROWD = 64  # rows of a band that are compared with each other as they are
MAX_KEPT = 32  # kept rows of a band that later rows are compared with
BATCH_ROWS = 1024  # whose n-grams are in memory at once, and between two reports of progress
NOTHING = np.empty(0, dtype=np.uint64)

Grams = tuple[Hashes, Hashes]  # sorted n-grams of a question and of its answer
_Text = tuple[Hashes, Hashes]  # sorted n-grams of a text: all, and those that few rows share
_Counted = tuple[
    Grams, Grams
]  # of a question and of its answer: all, and those that few rows share


@dataclass(frozen=True)
class NearCandidates:
    """Input of the search for near duplicates.

    Attributes:
        keys: Band keys of shape (rows, bands); no bands: near duplicates are not searched.
        grams: N-grams of a row.
        jaccard: Similarity from which two rows are duplicates.
        common: Sorted n-grams that do not count.
        band_keys: Sets of n-grams -> band keys, as those of `keys`.
        arrays: Creates the arrays of the search.
    """

    keys: Hashes
    grams: Callable[[int], Grams]
    jaccard: float
    common: Hashes
    band_keys: Callable[[list[Hashes]], Hashes]
    arrays: DiskArrays = field(default_factory=DiskArrays)


class _SharedBands:
    """The bands that each row shares with others, as group numbers, and the kept rows of each
    group: arrays, because there may be dozens of groups for each row."""

    def __init__(self, counts: Numbers, arrays: DiskArrays) -> None:
        """Make room for the given number of groups of each row."""
        self.counts = counts
        self._arrays = arrays
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._groups = arrays.zeros((int(self._starts[-1]),), np.int64)
        self._filled = self._starts[:-1].copy()
        self._rooms = [np.empty(0, np.int64)]  # of each group, the kept rows that are compared
        self._next = 0

    def add(self, rows: Numbers, sizes: Numbers) -> None:
        """Add groups of `sizes` rows, those of one group together."""
        numbers = np.repeat(np.arange(len(sizes)), sizes) + self._next
        self._groups[self._filled[rows]] = numbers
        self._filled[rows] += 1
        self._next += len(sizes)
        self._rooms.append(np.minimum(sizes, MAX_KEPT))

    def complete(self) -> None:
        """Make room for the kept rows of all groups."""
        self._room = np.concatenate(self._rooms)
        self._first = np.cumsum(self._room) - self._room
        self._kept = self._arrays.zeros((int(self._room.sum()),), np.int64)
        self._used = self._arrays.zeros((len(self._room),), np.int64)
        del self._rooms, self._filled

    def kept_rows(self, row: int) -> list[int]:
        """Kept rows of all groups of a row; one that shares several is there several times."""
        groups = self._of(row)
        used = self._used[groups]
        if not used.any():  # most rows
            return []
        pairs = zip(self._first[groups].tolist(), used.tolist(), strict=True)
        return [twin for first, n in pairs for twin in self._kept[first : first + n].tolist()]

    def keep(self, row: int) -> None:
        """Add a row to its groups that have room."""
        groups = self._of(row)
        groups = groups[self._used[groups] < self._room[groups]]
        self._kept[self._first[groups] + self._used[groups]] = row
        self._used[groups] += 1

    def _of(self, row: int) -> Numbers:
        return self._groups[self._starts[row] : self._starts[row + 1]]


class NearSearch:
    """Kept rows by band, and the similarity of a row to those that share one with it.

    Attributes:
        is_candidate: Rows that share a band with any other row.
        twins: The most similar kept row that each row was compared with, else `NO_TWIN`.
        similarity: True Jaccard similarity to it, the lower one of question and answer; it may be
            below the threshold.
        verified: Pairs whose true similarity was computed.
    """

    def __init__(self, near: NearCandidates, order: Numbers) -> None:
        """Start with no row kept; `order` ranks candidates that share equally many bands."""
        total = len(order)
        self._rank = np.empty(total, dtype=np.int64)
        self._rank[order] = np.arange(total)
        self._near = near
        self._bands = _shared_bands(near)
        self.is_candidate = self._bands.counts > 0
        self.twins = np.full(total, NO_TWIN, np.int64)
        self.similarity = np.zeros(total)
        self.verified = 0

    def look_up(self, row: int) -> list[int]:
        """Kept rows that are near duplicates of a row; records the most similar one compared."""
        bands = Counter(self._bands.kept_rows(row))
        if not bands:
            return []
        candidates = sorted(bands, key=lambda twin: (-bands[twin], self._rank[twin]))[:MAX_CHECKS]
        own = self._texts(row)
        found = [(_similarity(own, self._texts(twin)), twin) for twin in candidates]
        self.verified += len(found)
        self.similarity[row], self.twins[row] = max(found, key=lambda pair: pair[0])
        return [twin for similarity, twin in found if similarity >= self._near.jaccard]

    def keep(self, row: int) -> None:
        """Let later rows find this one."""
        self._bands.keep(row)

    def _texts(self, row: int) -> tuple[_Text, _Text]:
        """A row's question and its answer."""
        asked, answered = self._near.grams(row)
        common = self._near.common
        return (asked, _without(asked, common)), (answered, _without(answered, common))


def _similarity(one: tuple[_Text, _Text], other: tuple[_Text, _Text]) -> float:
    """The lower similarity of question and answer. A row without a question is compared by its
    answer; one without words in its answer is similar to none."""
    (asked, answered), (its_asked, its_answered) = one, other
    if not len(answered[0]) or not len(its_answered[0]):
        return 0.0
    if bool(len(asked[0])) != bool(len(its_asked[0])):
        return 0.0
    least = _similarity_of(answered, its_answered)
    return min(least, _similarity_of(asked, its_asked)) if len(asked[0]) and least else least


def _similarity_of(mine: _Text, its: _Text) -> float:
    """Similarity by what few rows share; texts without that are compared as they are."""
    has_own = len(mine[1]) or len(its[1])
    return jaccard(mine[1], its[1]) if has_own else jaccard(mine[0], its[0])


def _without(grams: Hashes, common: Hashes) -> Hashes:
    """The n-grams that are not common; both are sorted."""
    if not len(common):
        return grams
    places = np.searchsorted(common, grams)
    places[places == len(common)] = 0
    few: Hashes = grams[common[places] != grams]
    return few


def _shared_bands(near: NearCandidates) -> _SharedBands:
    """The bands that a row shares with others: first their number, to lay them out by row."""
    total = len(near.keys)
    # searched twice, unless the groups of all rows fit into memory
    groups = list(_groups(near.keys)) if total <= BLOCK_ROWS else None
    counts, is_crowded = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=bool)
    for rows, sizes in groups or _groups(near.keys):
        fits = np.repeat(sizes <= CROWD, sizes)
        counts[rows[fits]] += 1
        is_crowded[rows[~fits]] = True
    crowded = np.flatnonzero(is_crowded if len(near.common) else [])
    rare = _rare_keys(near, crowded)
    for places, _ in _groups(rare):
        counts[crowded[places]] += 1
    found = _SharedBands(counts, near.arrays)
    for rows, sizes in groups or _groups(near.keys):
        fits = sizes <= CROWD
        found.add(rows[np.repeat(fits, sizes)], sizes[fits])
    for places, sizes in _groups(rare):
        found.add(crowded[places], sizes)
    found.complete()
    return found


def _rare_keys(near: NearCandidates, rows: Numbers) -> Hashes:
    """Band keys of rows by the n-grams that few rows share."""
    keys = near.arrays.zeros((near.keys.shape[1], len(rows)), np.uint64)
    for first in range(0, len(rows), BATCH_ROWS):
        batch = rows[first : first + BATCH_ROWS].tolist()
        whole = [np.concatenate(near.grams(row)) for row in batch]
        rare = [grams[~np.isin(grams, near.common)] for grams in whole]
        sets = [few if len(few) else grams for few, grams in zip(rare, whole, strict=True)]
        keys[:, first : first + len(batch)] = near.band_keys(sets).T
        report("shared texts", first + len(batch), len(rows))
    return keys.T


def _groups(keys: Hashes) -> Iterator[tuple[Numbers, Numbers]]:
    """Of each band, the rows that share it, see `_groups_of`."""
    for band in range(keys.shape[1]):
        yield _groups_of(np.ascontiguousarray(keys[:, band]))


def _groups_of(column: Hashes) -> tuple[Numbers, NDArray[np.int64]]:
    """Rows that share a key with another row, those of one key together, and how many have each."""
    low_bits = np.uint64((1 << (len(column).bit_length() + 1)) - 1)
    # most rows share not even the low bits of their key with another, and need no sorting
    low = (column & low_bits).astype(np.int64)
    near = np.flatnonzero((np.bincount(low, minlength=1)[low] > 1) & (column != NO_KEY))
    order = near[np.argsort(column[near], kind="stable")]
    ordered = column[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))[: len(order)]
    sizes = np.diff(np.concatenate([starts, [len(order)]]))
    is_shared = np.repeat(sizes > 1, sizes)
    return order[is_shared], sizes[sizes > 1]
