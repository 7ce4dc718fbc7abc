from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.models.packing import pack_best_fit, pack_in_order
from tasks.core.rows.hash_rank import shuffled

WINDOW = 64
lengths_of_rows = st.lists(st.integers(1, WINDOW), min_size=1, max_size=200)


def packed(lengths: list[int], seed: int = 0) -> list[list[int]]:
    order = shuffled([str(i) for i in range(len(lengths))], seed)
    return pack_best_fit(np.array(lengths), order, WINDOW).windows()


@given(lengths_of_rows, st.integers(0, 9))
def test_every_row_is_placed_exactly_once_and_no_window_overflows(
    lengths: list[int], seed: int
) -> None:
    windows = packed(lengths, seed)
    assert sorted(chain.from_iterable(windows)) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in window) <= WINDOW for window in windows)


@given(lengths_of_rows)
def test_no_two_windows_could_be_one(lengths: list[int]) -> None:
    loads = sorted(sum(lengths[row] for row in window) for window in packed(lengths))
    assert len(loads) < 2 or loads[0] + loads[1] > WINDOW


def test_a_row_goes_where_it_leaves_the_least_room() -> None:
    packing = pack_best_fit(np.array([50, 40, 24, 14]), np.arange(4), WINDOW)
    assert packing.windows() == [[0, 3], [1, 2]]


def test_rows_are_shuffled_within_and_across_windows_by_seed() -> None:
    lengths = [1 + i % 13 for i in range(300)]
    assert packed(lengths, 0) == packed(lengths, 0)
    assert packed(lengths, 0) != packed(lengths, 1)


def test_full_and_sparse_windows_are_mixed() -> None:
    rng = np.random.default_rng(0)
    windows = packed(rng.integers(1, WINDOW, 4000).tolist())
    half = len(windows) // 2
    first, second = (np.mean([len(w) for w in part]) for part in (windows[:half], windows[half:]))
    assert abs(first - second) < 0.2


@given(lengths_of_rows, st.integers(0, 2 * WINDOW))
def test_packing_in_order_keeps_the_order_and_only_a_single_row_may_be_too_long(
    lengths: list[int], limit: int
) -> None:
    windows = list(pack_in_order(range(len(lengths)), lengths.__getitem__, limit))
    assert list(chain.from_iterable(windows)) == list(range(len(lengths)))
    for window, following in zip(windows, [*windows[1:], None], strict=True):
        tokens = sum(lengths[row] for row in window)
        assert tokens <= limit or len(window) == 1
        assert following is None or tokens + lengths[following[0]] > limit
