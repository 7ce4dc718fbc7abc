"""Near duplicates: rows that share a MinHash band are candidates; the true Jaccard similarity of
their n-grams decides."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tasks.core.decontamination.ngrams import Hashes, jaccard
from tasks.filtering.dedup.exact_dedup import NO_TWIN, Numbers
from tasks.filtering.dedup.minhash import NO_KEY

MAX_CHECKS = 256  # candidates compared per row, those that share most bands first


@dataclass(frozen=True)
class NearCandidates:
    """Input of the search for near duplicates.

    Attributes:
        keys: Band keys of shape (rows, bands); no bands: near duplicates are not searched.
        grams: Sorted set of n-grams of a row.
        jaccard: Similarity from which two rows are duplicates.
    """

    keys: Hashes
    grams: Callable[[int], Hashes]
    jaccard: float


class NearSearch:
    """Kept rows by band, and the similarity of a row to those that share one with it.

    Attributes:
        is_candidate: Rows that share a band with any other row.
        twins: The most similar kept row that each row was compared with, else `NO_TWIN`.
        similarity: True Jaccard similarity to it; it may be below the threshold.
        verified: Pairs whose true similarity was computed.
    """

    def __init__(self, near: NearCandidates, order: Numbers) -> None:
        """Start with no row kept; `order` ranks candidates that share equally many bands."""
        total = len(order)
        self._rank = np.empty(total, dtype=np.int64)
        self._rank[order] = np.arange(total)
        self._grams, self._jaccard = near.grams, near.jaccard
        self._starts, self._groups = _shared_bands(near.keys)
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
        own = self._grams(row)
        found = [(jaccard(own, self._grams(twin)), twin) for twin in candidates]
        self.verified += len(found)
        self.similarity[row], self.twins[row] = max(found, key=lambda pair: pair[0])
        return [twin for similarity, twin in found if similarity >= self._jaccard]

    def keep(self, row: int) -> None:
        """Let later rows find this one."""
        for group in self._bands(row):
            self._kept.setdefault(group, []).append(row)

    def _bands(self, row: int) -> list[int]:
        return self._groups[self._starts[row] : self._starts[row + 1]].tolist()  # type: ignore[no-any-return]


def _shared_bands(keys: Hashes) -> tuple[Numbers, Numbers]:
    """The bands that a row shares with another row, as group numbers: row i has those from
    starts[i] to starts[i + 1]."""
    total, bands = keys.shape
    low_bits = np.uint64((1 << (total.bit_length() + 3)) - 1)
    rows, groups, next_group = [], [], 0
    for band in range(bands):
        column = np.ascontiguousarray(keys[:, band])
        # most rows share not even the low bits of their key with another, and need no sorting
        low = (column & low_bits).astype(np.int64)
        near = np.flatnonzero((np.bincount(low) > 1)[low])
        column = column[near]
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        # same[i]: sorted key i equals key i - 1; False at both ends
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
