"""Near duplicates: rows that share a MinHash band are candidates; the true Jaccard similarity of
their n-grams decides, of the questions and of the answers, and both must be similar.

N-grams that many rows share (a preamble, a schema, a list of tools) say nothing about a pair and do
not count. They would also put all of these rows into the same bands, and comparing each with each
takes time that grows with the square of their number. So bands of more than `CROWD` rows are left
out, and their rows get new ones, from the n-grams that few rows share.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.decontamination.ngrams import Hashes, jaccard
from tasks.core.progress import report
from tasks.filtering.dedup.exact_dedup import NO_TWIN, Numbers
from tasks.filtering.dedup.minhash import NO_KEY

MAX_CHECKS = 256  # candidates compared per row, those that share most bands first
CROWD = 64  # rows of a band that are compared with each other as they are
MAX_KEPT = 32  # kept rows of a band that later rows are compared with
BATCH_ROWS = 1024
NOTHING = np.empty(0, dtype=np.uint64)

Grams = tuple[Hashes, Hashes]  # sorted n-grams of a question and of its answer


@dataclass(frozen=True)
class NearCandidates:
    """Input of the search for near duplicates.

    Attributes:
        keys: Band keys of shape (rows, bands); no bands: near duplicates are not searched.
        grams: N-grams of a row.
        jaccard: Similarity from which two rows are duplicates.
        common: Sorted n-grams that do not count.
        band_keys: Sets of n-grams -> band keys, as those of `keys`.
    """

    keys: Hashes
    grams: Callable[[int], Grams]
    jaccard: float
    common: Hashes
    band_keys: Callable[[list[Hashes]], Hashes]


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
        self._starts, self._groups = _candidate_bands(near)
        self._kept: dict[int, list[int]] = {}
        self.is_candidate = np.diff(self._starts) > 0
        self.twins = np.full(total, NO_TWIN, np.int64)
        self.similarity = np.zeros(total)
        self.verified = 0

    def look_up(self, row: int) -> list[int]:
        """Kept rows that are near duplicates of a row; records the most similar one compared."""
        bands = Counter(twin for group in self._bands(row) for twin in self._kept.get(group, ()))
        if not bands:
            return []
        candidates = sorted(bands, key=lambda twin: (-bands[twin], self._rank[twin]))[:MAX_CHECKS]
        own = self._near.grams(row)
        found = [(self._similarity(own, self._near.grams(twin)), twin) for twin in candidates]
        self.verified += len(found)
        self.similarity[row], self.twins[row] = max(found, key=lambda pair: pair[0])
        return [twin for similarity, twin in found if similarity >= self._near.jaccard]

    def _similarity(self, one: Grams, other: Grams) -> float:
        """The lower similarity of question and answer. A row without a question is compared by its
        answer; one without words in its answer is similar to none."""
        if not len(one[1]) or not len(other[1]) or bool(len(one[0])) != bool(len(other[0])):
            return 0.0
        parts = [pair for pair in zip(one, other, strict=True) if len(pair[0])]
        least = 1.0
        for mine, its in parts:
            # most pairs differ in all n-grams, and need no second look
            if (similarity := jaccard(mine, its)) and len(self._near.common):
                own = [_without(grams, self._near.common) for grams in (mine, its)]
                # texts that consist of what many rows share are compared as they are
                similarity = jaccard(*own) if any(map(len, own)) else similarity
            least = min(least, similarity)
        return least

    def keep(self, row: int) -> None:
        """Let later rows find this one."""
        for group in self._bands(row):
            kept = self._kept.setdefault(group, [])
            if len(kept) < MAX_KEPT:
                kept.append(row)

    def _bands(self, row: int) -> list[int]:
        return self._groups[self._starts[row] : self._starts[row + 1]].tolist()  # type: ignore[no-any-return]


def _without(grams: Hashes, common: Hashes) -> Hashes:
    """The n-grams that are not common; both are sorted."""
    places = np.searchsorted(common, grams)
    places[places == len(common)] = 0
    few: Hashes = grams[common[places] != grams]
    return few


def _candidate_bands(near: NearCandidates) -> tuple[Numbers, Numbers]:
    """The bands that a row shares with another row, as group numbers: row i has those from
    starts[i] to starts[i + 1]."""
    total = len(near.keys)
    everything = np.arange(total)
    rows, groups, next_group = _shared_bands(near.keys, everything, 0, CROWD)
    crowded = _crowded(near.keys)
    if len(crowded) and len(near.common):
        more = _shared_bands(_rare_keys(near, crowded), crowded, next_group, total)
        rows, groups = np.concatenate([rows, more[0]]), np.concatenate([groups, more[1]])
    by_row = np.argsort(rows, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=total))])
    return starts.astype(np.int64), groups[by_row]


def _rare_keys(near: NearCandidates, rows: Numbers) -> Hashes:
    """Band keys of rows by the n-grams that few rows share."""
    keys = np.empty((len(rows), near.keys.shape[1]), dtype=np.uint64)
    for first in range(0, len(rows), BATCH_ROWS):
        batch = rows[first : first + BATCH_ROWS].tolist()
        whole = [np.concatenate(near.grams(row)) for row in batch]
        rare = [grams[~np.isin(grams, near.common)] for grams in whole]
        sets = [few if len(few) else grams for few, grams in zip(rare, whole, strict=True)]
        keys[first : first + len(batch)] = near.band_keys(sets)
        report("shared texts", first + len(batch), len(rows))
    return keys


def _crowded(keys: Hashes) -> Numbers:
    """Rows with a band that more than `CROWD` rows share."""
    is_crowded = np.zeros(len(keys), dtype=bool)
    for band in range(keys.shape[1]):
        members, sizes = _groups_of(np.ascontiguousarray(keys[:, band]))
        is_crowded[members[np.repeat(sizes, sizes) > CROWD]] = True
    return np.flatnonzero(is_crowded)


def _shared_bands(
    keys: Hashes, numbers: Numbers, next_group: int, at_most: int
) -> tuple[Numbers, Numbers, int]:
    """(row, group) for each band that 2 to `at_most` rows share, as two columns, and the next free
    group number; row i of `keys` is row `numbers[i]`."""
    rows, groups = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for band in range(keys.shape[1]):
        members, sizes = _groups_of(np.ascontiguousarray(keys[:, band]))
        fits = np.repeat(sizes, sizes) <= at_most
        rows.append(numbers[members[fits]])
        groups.append(np.repeat(np.arange(len(sizes)), sizes)[fits] + next_group)
        next_group += len(sizes)
    return np.concatenate(rows), np.concatenate(groups), next_group


def _groups_of(column: Hashes) -> tuple[Numbers, NDArray[np.int64]]:
    """Rows that share a key with another row, those of one key together, and how many have each."""
    low_bits = np.uint64((1 << (len(column).bit_length() + 3)) - 1)
    # most rows share not even the low bits of their key with another, and need no sorting
    low = (column & low_bits).astype(np.int64)
    near = np.flatnonzero((np.bincount(low, minlength=1)[low] > 1) & (column != NO_KEY))
    order = near[np.argsort(column[near], kind="stable")]
    ordered = column[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))[: len(order)]
    sizes = np.diff(np.concatenate([starts, [len(order)]]))
    is_shared = np.repeat(sizes > 1, sizes)
    return order[is_shared], sizes[sizes > 1]
