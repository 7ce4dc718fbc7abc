"""Packing: rows of different lengths -> windows of at most so many tokens.

Two methods. `pack_best_fit` is for data that is packed once and trained on many times: it takes
rows in any order and leaves the least padding. `pack_in_order` keeps the order of the rows and
needs only the next one, for rows that are read once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.core.models.packed_dataset import Window

Ints = NDArray[np.int64]
T = TypeVar("T")


def pack_best_fit(lengths: Ints, order: Ints, window_tokens: int) -> list[list[int]]:
    """Best-fit decreasing: longest row first, each into the window where it leaves the least room.

    See Johnson 1973; for language models Ding et al. 2024, "Fewer Truncations Improve Language
    Modeling". The room that is free somewhere is kept as the bits of one integer, so the best
    window is found by one shift, and a million rows take seconds.

    Args:
        lengths: Tokens of each row, at most `window_tokens`.
        order: Row indexes in random order: among equally long rows the earlier one is placed
            first, and the rows of a window stand in this order.
        window_tokens: Tokens that fit in a window.

    Returns:
        Windows of row indexes; every row is in exactly one. Windows are in the order of their
        first rows, which says nothing about how many rows they hold, so that full and sparse
        windows are mixed.
    """
    ordered = lengths[order]
    by_size = np.argsort(-ordered, kind="stable")
    windows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(window_tokens + 1)]
    rooms = 0  # bit r is set where some window has room for exactly r tokens
    for rank, length in zip(by_size.tolist(), ordered[by_size].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            # the lowest set bit is the least room that is enough
            room = length + (fitting & -fitting).bit_length() - 1
            window = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
            windows[window].append(rank)
        else:
            room, window = window_tokens, len(windows)
            windows.append([rank])
        left = room - length
        if left:
            with_room[left].append(window)
            rooms |= 1 << left
    windows.sort(key=lambda ranks: ranks[0])
    return [order[sorted(ranks)].tolist() for ranks in windows]


def consecutive(windows: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same windows for rows that are stored in window order: runs of 0, 1, 2 ..."""
    ends = np.cumsum([0, *map(len, windows)]).tolist()
    return [list(range(start, end)) for start, end in pairwise(ends)]


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
