"""Packing: rows of different lengths -> windows of limited length.

Two methods. `pack_best_fit` is for data that is packed once and trained on many times: it takes
rows in any order and leaves the least padding. `pack_in_order` keeps the order of the rows and
needs only the next one, for rows that are read once.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.core.models.packed_dataset import Window

Ints = NDArray[np.int64]
AT_ONCE = 65_536  # rows that are Python's numbers, which take four times the memory
T = TypeVar("T")


@dataclass(frozen=True)
class Packing:
    """Which rows are in which window: arrays, because there may be millions of each.

    Attributes:
        rows: Row indexes, those of a window together.
        ends: Where each window ends in `rows`.
    """

    rows: Ints
    ends: Ints

    @property
    def starts(self) -> Ints:
        """Where each window begins in `rows`."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])

    def windows(self) -> list[list[int]]:
        """The row indexes of each window."""
        bounds = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [self.rows[start:end].tolist() for start, end in bounds]


def pack_best_fit(lengths: Ints, order: Ints, window_tokens: int) -> Packing:
    """Best-fit decreasing: longest row first, each into the window where it leaves the least room.

    See Johnson 1973; for language models Ding et al. 2024, "Fewer Truncations Improve Language
    Modeling". The room that is free somewhere is kept as the bits of one integer, so the best
    window is found by one shift, and a million rows take seconds.

    Args:
        lengths: Tokens of each row, at most `window_tokens`.
        order: Row indexes in random order: among equally long rows the earlier one is placed
            first, and the rows of a window are in this order.
        window_tokens: Tokens that fit in a window.

    Returns:
        Every row is in exactly one window. Windows are in the order of their longest rows, which
        nothing about how many rows they hold, so that full and sparse windows are mixed.
    """
    ordered = lengths[order]
    by_size = np.argsort(-ordered, kind="stable")
    window_of = array("q", bytes(8 * len(order)))  # of each rank; a window is named by its first
    with_room: list[list[int]] = [[] for _ in range(window_tokens + 1)]
    rooms = 0  # bit r is set where some window has room for exactly r tokens
    for first in range(0, len(by_size), AT_ONCE):
        some = by_size[first : first + AT_ONCE]
        for rank, length in zip(some.tolist(), ordered[some].tolist(), strict=True):
            fitting = rooms >> length
            if fitting:
                # the lowest set bit is the least room that is enough
                room = length + (fitting & -fitting).bit_length() - 1
                window = with_room[room].pop()
                if not with_room[room]:
                    rooms ^= 1 << room
            else:
                room, window = window_tokens, rank
            window_of[rank] = window
            left = room - length
            if left:
                with_room[left].append(window)
                rooms |= 1 << left
    windows = np.frombuffer(window_of, dtype=np.int64)
    ranks = np.argsort(windows, kind="stable")
    is_last = np.append(np.diff(windows[ranks]) != 0, True)[: len(ranks)]
    return Packing(order[ranks], np.flatnonzero(is_last) + 1)


def pack_in_order(
    rows: Iterable[T], length: Callable[[T], int], window_tokens: int
) -> Iterator[list[T]]:
    """Consecutive rows as windows of at most `window_tokens`; a longer row is alone in its own."""
    window: list[T] = []
    tokens = 0
    for row in rows:
        if window and tokens + length(row) > window_tokens:
            yield window
            window, tokens = [], 0
        window.append(row)
        tokens += length(row)
    if window:
        yield window


def join_rows(rows: Iterable[Window], window_tokens: int) -> Iterator[Window]:
    """Join consecutive rows into windows of at most `window_tokens`; a longer row stays alone."""
    return map(_join, pack_in_order(rows, lambda row: len(row.input_ids), window_tokens))


def _join(rows: list[Window]) -> Window:
    """One window of the samples of all rows, isolated from each other as they were."""
    if len(rows) == 1:
        return rows[0]
    starts = np.cumsum([0, *(len(row.input_ids) for row in rows)])
    bounds = [row.cu_seqlens[1:] + start for row, start in zip(rows, starts, strict=False)]
    return Window(
        np.concatenate([row.input_ids for row in rows]),
        np.concatenate([row.labels for row in rows]),
        np.concatenate([row.position_ids for row in rows]),
        np.concatenate([[0], *bounds]).astype(np.int32),
        tuple(row_id for row in rows for row_id in row.row_ids),
    )
