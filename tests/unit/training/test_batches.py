"""The batch sampler."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.models.packed_dataset import Windows
from tasks.core.models.packing import join_rows
from tasks.training.batches import (
    Batches,
    count_steps,
    epoch_order,
    row_order,
    steps_by_rows,
    steps_by_tokens,
)
from tests.unit.training.conftest import make_window, write_split


@given(st.integers(0, 700), st.integers(0, 5), st.integers(1, 300))
def test_an_epoch_sees_every_sample_once(count: int, epoch: int, block: int) -> None:
    assert sorted(epoch_order(count, 7, epoch, block).tolist()) == list(range(count))


def test_the_first_epoch_is_in_stored_order_and_later_ones_differ() -> None:
    first, second, third = (epoch_order(600, 7, e).tolist() for e in range(3))
    assert first == list(range(600))
    assert second not in (first, third)
    assert second == epoch_order(600, 7, 1).tolist()


def test_rows_are_shuffled_in_every_epoch_and_alike_in_every_run() -> None:
    orders = [row_order(600, 7, epoch).tolist() for epoch in range(3)]
    for epoch, order in enumerate(orders):
        assert sorted(order) == list(range(600))
        assert row_order(600, 7, epoch).tolist() == order
        # neighbours in the data are no neighbours in a step, more often than by chance
        assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(order)) < 12
    assert orders[0] != orders[1] != orders[2]


def test_a_step_of_rows_does_not_follow_the_stored_order(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "train", 40)
    _, windows = next(batches(folder, joined_tokens=0).steps(0, 1))
    assert [w.row_ids[0] for w in windows] != ["r0", "r1", "r2", "r3"]


@given(st.lists(st.integers(1, 4096), max_size=60), st.integers(1, 20_000))
def test_steps_by_tokens_keep_every_window_and_come_near_the_goal(
    tokens: list[int], goal: int
) -> None:
    order, sizes = np.arange(len(tokens)), np.array(tokens, dtype=np.int64)
    steps = steps_by_tokens(order, sizes, goal)
    assert [i for step in steps for i in step] == order.tolist()
    for step in steps[:-1]:
        total = sum(tokens[i] for i in step)
        assert len(step) == 1 or total <= goal + max(tokens)


def test_windows_not_quite_full_do_not_draw_in_another() -> None:
    sizes = np.array([4000, 4090, 3900, 4050] * 2)
    steps = steps_by_tokens(np.arange(8), sizes, 16_384)
    assert steps == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_the_last_step_of_an_epoch_may_be_smaller() -> None:
    assert steps_by_rows(np.arange(5), 2) == [(0, 1), (2, 3), (4,)]


@pytest.mark.parametrize(
    ("max_steps", "epochs", "expected"),
    [(2000, None, 2000), (None, 2.0, 21), (None, 0.5, 5), (7, 1.0, 7), (100, 1.0, 10)],
)
def test_whichever_limit_comes_first_ends_the_run(
    max_steps: int | None, epochs: float | None, expected: int
) -> None:
    assert count_steps([10, 11, 10], max_steps, epochs) == expected


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 64))
def test_joined_rows_stay_whole_in_order_and_within_the_limit(
    lengths: list[int], limit: int
) -> None:
    rows = [make_window(n, seed=i) for i, n in enumerate(lengths)]
    joined = list(join_rows(rows, limit))
    ids = np.concatenate([w.input_ids for w in joined])
    assert ids.tolist() == np.concatenate([r.input_ids for r in rows]).tolist()
    for window in joined:
        assert len(window.row_ids) == 1 or len(window.input_ids) <= limit
        assert window.cu_seqlens[-1] == len(window.input_ids)
        assert (window.position_ids[window.cu_seqlens[:-1]] == 0).all()
        assert sum(len(w.row_ids) for w in joined) == len(lengths)


def batches(folder: Path, **changes: int | None) -> Batches:
    values = {"batch_rows": 4, "batch_tokens": None, "joined_tokens": 64, "seed": 1} | changes
    return Batches(Windows.open(folder), **values)  # type: ignore[arg-type]


def test_a_resumed_run_sees_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "train", 13)
    for changes in ({}, {"batch_tokens": 40}):
        whole = list(batches(folder, **changes).steps(0, 12))
        for start in (1, 4, 5, 11):
            rest = list(batches(folder, **changes).steps(start, 12))
            names = [[w.row_ids for w in windows] for _, windows in rest]
            assert names == [[w.row_ids for w in windows] for _, windows in whole[start:]]
            assert [epoch for epoch, _ in rest] == [epoch for epoch, _ in whole[start:]]


def test_rows_run_one_by_one_when_joining_is_off(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "train", 8)
    _, windows = next(batches(folder, joined_tokens=0).steps(0, 1))
    assert [len(w.row_ids) for w in windows] == [1, 1, 1, 1]
