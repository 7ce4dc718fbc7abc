"""Which rows are kept of those that duplicate each other, and clusters of related rows.

Rows that pass every other rule are taken in a fixed order, best first; a row is kept unless a kept
one is its exact or verified near twin. So the result does not depend on the order of the rows or
the number of workers, every row dropped here has a twin that is kept, no group loses all its rows,
and no two kept rows are a verified pair. Keeping one row per connected component would be shorter,
but components chain thousands of unlike rows together, and unverified candidates more so.

Components of the pairs found are still returned, as `clusters`, and the answers to one question are
in one: train and test must not share one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.progress import report
from tasks.filtering.dedup.exact_dedup import NO_TWIN, ExactSearch, Numbers
from tasks.filtering.dedup.near_dedup import NearCandidates, NearSearch

REPORT_ROWS = 1_000


@dataclass(frozen=True)
class Duplicates:
    """The duplicates, one entry per row.

    Attributes:
        exact: The kept row that has the same text, else `NO_TWIN`.
        near: The most similar kept row of those compared, else `NO_TWIN`.
        similarity: True Jaccard similarity to `near`; it may be below the threshold.
        is_near: Whether it reaches the threshold.
        answer_number: How many better answers to the same question are kept, for rows that no
            other reason removes; else 0.
        clusters: Number of the first row of the component that the row belongs to.
        verified: Pairs whose true similarity was computed.
    """

    exact: Numbers
    near: Numbers
    similarity: NDArray[np.float64]
    is_near: NDArray[np.bool_]
    answer_number: Numbers
    clusters: Numbers
    verified: int


def find_duplicates(
    order: Numbers,
    passes: NDArray[np.bool_],
    exact: Numbers | None,
    near: NearCandidates,
    questions: Numbers | None = None,
) -> Duplicates:
    """For each row the kept rows that it is a duplicate of.

    Args:
        order: All row numbers, best first: who is kept.
        passes: Rows that no other rule rejects; only they can be kept.
        exact: A group number per row; rows of one group have the same text. None: exact duplicates
            are allowed.
        near: Candidates for near duplicates.
        questions: A group number per row; rows of one group have the same question.
    """
    texts, search = ExactSearch(exact, len(order)), NearSearch(near, order)
    clusters = _Clusters(len(order))
    # most rows share neither a text nor a band with another row and skip the loop
    involved = texts.is_candidate | search.is_candidate
    rows = order[passes[order] & involved[order]]
    for number, row in enumerate(_numbers(rows)):
        found = texts.look_up(row) or search.look_up(row)
        for twin in found:
            clusters.join(row, twin)
        if not found:
            texts.keep(row)
            search.keep(row)
        if number % REPORT_ROWS == 0:
            report("duplicates", number, len(rows))
    texts.keep(np.flatnonzero(passes & ~involved))
    for row in _numbers(order[~passes[order] & involved[order]]):
        search.look_up(row)  # rejected for another reason, and a duplicate too
    is_near = search.similarity >= near.jaccard
    twins = texts.twins()
    answers = np.zeros(len(order), dtype=np.int64)
    if questions is not None:
        is_kept = passes & ~is_near & (twins == NO_TWIN)
        answers = _number_answers(order[is_kept[order]], questions, clusters)
    return Duplicates(
        twins, search.twins, search.similarity, is_near, answers, clusters.roots(), search.verified
    )


def _numbers(rows: Numbers) -> Iterator[int]:
    """The rows as Python's numbers, which take four times the memory, a few at a time."""
    for first in range(0, len(rows), REPORT_ROWS):
        yield from rows[first : first + REPORT_ROWS].tolist()


def _number_answers(kept: Numbers, questions: Numbers, clusters: "_Clusters") -> Numbers:
    """Number the kept rows of each question, best first, and join them into one cluster."""
    numbers = np.zeros(len(questions), dtype=np.int64)
    several = np.bincount(questions[kept], minlength=1)[questions[kept]] > 1
    firsts: dict[int, int] = {}
    counts: dict[int, int] = {}
    for row, question in zip(
        kept[several].tolist(), questions[kept[several]].tolist(), strict=True
    ):
        numbers[row] = counts.get(question, 0)
        counts[question] = counts.get(question, 0) + 1
        clusters.join(row, firsts.setdefault(question, row))
    return numbers


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
