"""Rows -> windows: best-fit decreasing, the packing that leaves least padding at no cost in truth.

Longest row first, each into the window where it leaves the least room (Johnson 1973; for language
models Ding et al. 2024, "Fewer Truncations Improve Language Modeling"). A bit per amount of free
room makes finding that window one shift of an integer, so a million rows take seconds.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def shuffled(row_ids: Sequence[str], seed: int) -> Ints:
    """Indexes of rows in an order that depends on seed and ids alone, not on how the rows came."""
    keys = [
        hashlib.blake2b(f"{seed}\0{row_id}".encode(), digest_size=16).digest() for row_id in row_ids
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def pack(lengths: Ints, order: Ints, window_tokens: int) -> list[list[int]]:
    """Place every row in exactly one window.

    Args:
        lengths: Tokens of each row, at most `window_tokens`.
        order: A permutation of the rows: of equally long ones the earlier is placed first, and rows
            stand in their window in this order.
        window_tokens: Room of a window.

    Returns:
        Windows of row indexes. Windows stand in the order of their longest rows, which says
        nothing about how many rows they hold, so full and sparse windows are mixed.
    """
    ordered = lengths[order]
    by_size = np.argsort(-ordered, kind="stable")
    windows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(window_tokens + 1)]
    rooms = 0  # bit r is set where some window has room for exactly r tokens
    for rank, length in zip(by_size.tolist(), ordered[by_size].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
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
    """The same windows over rows that are stored in window order: runs of 0, 1, 2 ..."""
    ends = np.cumsum([0, *map(len, windows)]).tolist()
    return [list(range(start, end)) for start, end in pairwise(ends)]
