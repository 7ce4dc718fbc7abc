import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.rows import disk_arrays
from tasks.core.rows.disk_arrays import DiskArrays, group_numbers, mapped_table, text_numbers

TEXTS = ["b", "a", "b", "", "c", "a", ""]


def partition(numbers: np.ndarray) -> list[list[int]]:
    return sorted(np.flatnonzero(numbers == n).tolist() for n in set(numbers.tolist()))


@pytest.mark.parametrize("at_most", [0, 100])
def test_equal_texts_have_equal_numbers(at_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_arrays, "IN_MEMORY_ROWS", at_most)
    monkeypatch.setattr(disk_arrays, "BATCH_ROWS", 2)
    numbers = text_numbers(pa.chunked_array([TEXTS[:3], TEXTS[3:]]))
    assert partition(numbers) == [[0, 2], [1, 5], [3, 6], [4]]
    assert numbers.max() == 3


def test_keys_are_equal_only_in_both_columns() -> None:
    keys = np.array([[1, 2], [2, 1], [1, 2], [1, 3]], dtype=np.uint64)
    assert partition(group_numbers(keys)) == [[0, 2], [1], [3]]


def test_a_large_array_leaves_no_file_behind(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_arrays, "IN_MEMORY_BYTES", 8)
    array = DiskArrays(tmp_path).zeros((3, 4), np.int64)
    array[1] = 7
    assert array.tolist() == [[0] * 4, [7] * 4, [0] * 4] and not list(tmp_path.iterdir())


def test_a_mapped_table_has_the_columns_in_the_order_asked_for(tmp_path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / "t.parquet")
    table = mapped_table(tmp_path / "t.parquet", ["b", "a"], tmp_path / "t.arrow")
    assert table.to_pydict() == {"b": ["x", "y"], "a": [1, 2]}
