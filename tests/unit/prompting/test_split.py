from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import PipelineError
from tasks.core.rows.hash_rank import hash_rank
from tasks.prompting.split import SPLITS, RowSplits, fill
from tasks.prompting.split_by_time import split_by_time
from tasks.prompting.units import COLUMNS, place_of

shares = st.floats(0.01, 0.4)


def split_of(name: str, validation: float, test: float, seed: int) -> str:
    places = np.array([place_of(name, seed), *np.linspace(0, 1 - 1e-12, 999)])
    return SPLITS[fill(places, np.ones(1000, np.int64), validation, test)[0]]


@given(st.text(), shares, shares, shares, st.integers(0, 99))
def test_changing_one_share_moves_no_project_between_validation_and_test(
    project: str, validation: float, test: float, other: float, seed: int
) -> None:
    moved = {split_of(project, validation, test, seed), split_of(project, other, test, seed)}
    assert moved != {"validation", "test"}


@given(st.text(), shares, shares)
def test_a_larger_share_keeps_what_the_smaller_one_held_out(
    project: str, validation: float, test: float
) -> None:
    for split in ("validation", "test"):
        if split_of(project, validation, test, 0) == split:
            assert split_of(project, validation * 1.2, test * 1.2, 0) == split


def test_shares_are_met_over_many_projects() -> None:
    places = np.array([place_of(f"project{i}", 3) for i in range(10_000)])
    counts = np.bincount(fill(places, np.ones(10_000, np.int64), 0.05, 0.1), minlength=3)
    for count, wanted in zip(counts, (8500, 500, 1000), strict=True):
        assert abs(count - wanted) < 150


def test_another_seed_holds_out_other_projects() -> None:
    first, second = (
        {i for i in range(500) if split_of(str(i), 0.1, 0.1, seed) == "test"} for seed in (0, 1)
    )
    assert first != second


@given(st.lists(st.floats(0, 0.999), min_size=3, max_size=30), shares, shares)
def test_three_units_fill_three_splits_wherever_they_fall(
    places: list[float], validation: float, test: float
) -> None:
    assert set(fill(np.array(places), np.arange(len(places)), validation, test)) == {0, 1, 2}


def test_a_split_of_small_units_is_filled_to_half_of_its_share() -> None:
    sizes = np.array([1, 1, 1, 1, 1, 95])
    numbers = fill(np.array([0.01, 0.1, 0.2, 0.3, 0.4, 0.5]), sizes, 0.0, 0.06)
    assert sizes[numbers == SPLITS.index("test")].sum() == 3


def text_id(number: int) -> str:
    return hash_rank("row", number, size=16).hex()


def rows_of(count: int, **columns: Any) -> pa.Table:
    """Rows of one project; each column is a function of the row's number."""
    fields = {
        "row_id": text_id,
        "kind": lambda i: "function",
        "project": lambda i: "repo/",
        "source": lambda i: "repo",
        "path": lambda i: f"src/m{i % 10}.py",
        "cluster": text_id,
        "date": lambda i: "",
        **columns,
    }
    return pa.table({name: [fields[name](i) for i in range(count)] for name in COLUMNS})


def split(rows: pa.Table, unit: str = "auto", validation: float = 0.05) -> RowSplits:
    return RowSplits.by_unit(rows, unit, validation, 0.05, 0)


def by_path(rows: pa.Table, splits: RowSplits) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for path, number in zip(rows["path"].to_pylist(), splits.numbers.tolist(), strict=True):
        found.setdefault(path, set()).add(number)
    return found


def test_one_project_of_many_files_is_split_by_file() -> None:
    rows = rows_of(100)
    splits = split(rows)
    assert splits.unit == "file" and sum(splits.units.values()) == 10
    assert all(len(numbers) == 1 for numbers in by_path(rows, splits).values())


def test_one_project_of_many_folders_is_split_by_folder() -> None:
    rows = rows_of(200, path=lambda i: f"pkg{i % 20}/m{i % 40}.py")
    splits = split(rows)
    assert splits.unit == "folder" and sum(splits.units.values()) == 20


def test_many_projects_are_split_by_project() -> None:
    assert split(rows_of(100, project=lambda i: f"p{i % 50}")).unit == "project"


def test_a_project_that_would_leave_train_too_little_is_not_the_unit() -> None:
    # every split needs a project, and two thirds of the rows would be held out
    assert split(rows_of(99, project=lambda i: f"p{i % 3}")).unit == "file"


def test_a_file_with_most_of_the_rows_is_trained_on_where_files_are_the_unit() -> None:
    for seed in range(9):
        rows = rows_of(60, path=lambda i: f"{i if i < 4 else 4}.py")
        found = RowSplits.by_unit(rows, "file", 0.05, 0.1, seed).rows()
        assert found["train"] >= 56 and found["validation"] and found["test"]


def test_one_file_is_split_by_cluster() -> None:
    rows = rows_of(100, path=lambda i: "all.py", cluster=lambda i: text_id(i // 2))
    splits = split(rows)
    assert splits.unit == "cluster" and not splits.dropped and all(splits.rows().values())
    pairs = splits.numbers.reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()


def test_clusters_that_link_all_files_make_the_cluster_the_unit() -> None:
    splits = split(rows_of(100, cluster=lambda i: text_id(i // 10)))
    assert splits.unit == "cluster" and not splits.dropped


def test_rows_that_are_their_own_project_stay_units_beside_a_repository() -> None:
    rows = rows_of(40, project=lambda i: text_id(i) if i < 2 else "repo/", path=lambda i: "a.py")
    assert split(rows, "file").units == {"train": 1, "validation": 1, "test": 1}


def test_renamed_files_folders_and_sources_move_no_row() -> None:
    old = rows_of(100, path=lambda i: f"src/m{i % 10}.py")
    new = rows_of(
        100,
        path=lambda i: f"lib/n{9 - i % 10}.py",
        source=lambda i: "other",
        project=lambda i: "other/",
    )
    assert split(old).numbers.tolist() == split(new).numbers.tolist()


def test_renaming_the_source_moves_no_project_that_is_a_folder() -> None:
    old, new = (
        split(rows_of(100, project=lambda i, s=source: f"{s}/{i % 50}/")) for source in ("a", "b")
    )
    assert old.unit == "project" and old.numbers.tolist() == new.numbers.tolist()


def test_a_new_row_that_is_not_the_least_of_its_file_moves_nothing() -> None:
    old = rows_of(100)
    least = {
        p: min(r["row_id"] for r in old.to_pylist() if r["path"] == p)
        for p in by_path(old, split(old))
    }
    new = [r for r in rows_of(300).to_pylist()[100:] if r["row_id"] > least[r["path"]]]
    both = pa.concat_tables([old, pa.Table.from_pylist(new, schema=old.schema)])
    assert len(both) > 250
    assert split(both).numbers[:100].tolist() == split(old).numbers.tolist()


def test_rows_of_another_type_move_no_file_that_is_also_read_as_a_whole() -> None:
    files = rows_of(60, kind=lambda i: "file", path=lambda i: f"m{i}.py")
    others = rows_of(
        600,
        row_id=lambda i: text_id(1000 + i),
        path=lambda i: f"m{i % 60}.py",
        kind=lambda i: "fill",
    )
    alone = split(files, "file").numbers
    np.testing.assert_array_equal(
        split(pa.concat_tables([files, others]), "file").numbers[:60], alone
    )


@pytest.mark.parametrize("unit", ["project", "folder", "file"])
def test_a_fixed_unit_without_three_of_it_says_what_to_set(unit: str) -> None:
    rows = rows_of(50, path=lambda i: "src/one.py")
    with pytest.raises(PipelineError) as caught:
        split(rows, unit)
    assert f"too little data: 50 rows in 1 {unit}" in str(caught.value)
    assert "Set prompt.split to auto" in str(caught.value)
    assert all(split(rows, "auto").rows().values())


def test_two_rows_are_too_little_and_a_third_one_is_enough() -> None:
    with pytest.raises(PipelineError, match=r"too little data: 2 rows in .* 2 clusters"):
        split(rows_of(2))
    assert split(rows_of(3)).rows() == {"train": 1, "validation": 1, "test": 1}


DAYS = {"date": lambda i: f"2026-01-{1 + i % 20:02d}T12:00:00Z"}


def test_the_split_by_time_tests_on_what_came_after_the_date() -> None:
    rows = rows_of(100, **DAYS)
    splits = split_by_time(rows, "2026-01-18", 0.05, 0.05)
    dates = {
        name: {
            d
            for d, n in zip(rows["date"].to_pylist(), splits.numbers.tolist(), strict=True)
            if n == i
        }
        for i, name in enumerate(SPLITS)
    }
    assert max(dates["train"]) < min(dates["validation"]) < "2026-01-18" <= min(dates["test"])
    assert splits.units == {"train": 16, "validation": 1, "test": 3}


def test_the_split_by_time_takes_the_newest_share_without_a_date() -> None:
    splits = split_by_time(rows_of(100, **DAYS), None, 0.1, 0.2)
    assert splits.rows() == {"train": 70, "validation": 10, "test": 20}


def test_rows_without_a_date_are_trained_on() -> None:
    rows = rows_of(100, date=lambda i: "" if i < 50 else f"2026-01-{1 + i % 20:02d}T12:00:00Z")
    assert not split_by_time(rows, None, 0.1, 0.1).numbers[:50].any()


def test_the_split_by_time_needs_dates() -> None:
    with pytest.raises(PipelineError, match="none of 10 rows has a date"):
        split_by_time(rows_of(10), None, 0.1, 0.1)


@pytest.mark.parametrize("date", ["2025-01-01", "2027-01-01"])
def test_a_date_outside_of_the_history_tells_the_history(date: str) -> None:
    with pytest.raises(PipelineError, match="from 2026-01-01T12:00:00Z to 2026-01-20"):
        split_by_time(rows_of(100, **DAYS), date, 0.1, 0.1)
