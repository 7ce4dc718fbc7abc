from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.rows import parquet
from tasks.core.rows.parquet import TableWriter

SCHEMA = pa.schema([("text", pa.string()), ("n", pa.int32())])


def rows(count: int, characters: int) -> list[tuple[str, int]]:
    return [(f"{n:08d}" * (characters // 8), n) for n in range(count)]


def write(path: Path, given: list[tuple[str, int]], table_rows: int) -> list[int]:
    """Write rows, one by one or as tables; gives the rows of each row group."""
    with TableWriter(path, SCHEMA) as writer:
        if not table_rows:
            writer.extend(given)
        for start in range(0, len(given) if table_rows else 0, table_rows or 1):
            part = given[start : start + table_rows]
            writer.add_table(parquet.as_table(part, SCHEMA))
    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        return [file.metadata.row_group(group).num_rows for group in groups]


def test_row_group_of_long_texts_ends_after_a_number_of_bytes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1 << 20)
    assert write(tmp_path / "a", rows(1000, 4096), 0) == [256, 256, 256, 232]


def test_row_group_of_short_texts_ends_after_a_number_of_rows(tmp_path) -> None:
    assert write(tmp_path / "a", rows(5000, 8), 0) == [4096, 904]


@pytest.mark.parametrize("table_rows", [1, 100, 128, 1000])
def test_the_same_rows_give_the_same_bytes_however_they_arrive(
    tmp_path, monkeypatch, table_rows
) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1 << 20)
    given = [*rows(300, 8192), *rows(2000, 8), *rows(300, 4096)]
    assert write(tmp_path / "a", given, 0) == write(tmp_path / "b", given, table_rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("values", [["é", "é"], ["a", "b", "a"], ["a", None, "a"], [None], []])
def test_a_column_of_equal_texts_is_that_of_any_list(values) -> None:
    schema = pa.schema([("text", pa.string())])
    assert parquet.as_table([(v,) for v in values], schema).column(0).to_pylist() == values


def test_equal_numbers_keep_their_own_bytes() -> None:
    schema = pa.schema([("x", pa.float64())])
    found = parquet.as_table([(0.0,), (-0.0,)], schema).column(0).to_pylist()
    assert list(map(str, found)) == ["0.0", "-0.0"]
