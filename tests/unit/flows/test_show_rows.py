from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.commands.show.rows import find_row, numbers, unreadable_lines
from tasks.core.rows import row_schema


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten rows in groups of three."""
    rows = {"row_id": [f"id{n}" for n in range(10)], "text": [f"text {n}" for n in range(10)]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet", row_group_size=3)
    return tmp_path / "rows.parquet"


def test_a_row_is_found_by_number_and_by_id_in_any_row_group(table: Path) -> None:
    for n in range(10):
        wanted = {"row_id": f"id{n}", "text": f"text {n}"}
        assert find_row(table, str(n), is_number=True) == find_row(table, f"id{n}") == wanted
    assert find_row(table, "10", is_number=True) is None and find_row(table, "id10") is None


def test_only_the_row_group_of_the_row_is_read_whole(table: Path, monkeypatch) -> None:
    read: list[int] = []
    whole = pq.ParquetFile.read_row_group

    def noted(self: Any, group: int, *rest: Any) -> Any:
        read.append(group)
        return whole(self, group, *rest)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    find_row(table, "id7")
    assert read == [2]


def test_a_person_is_told_which_numbers_there_are(table: Path) -> None:
    assert "0 to 9 (a row of kept)" in numbers({"kept": table, "rejected": table})


def test_what_was_unreadable_is_listed_by_file_and_line(tmp_path: Path) -> None:
    entries = [("s", "a.jsonl", n, "malformed JSON\x1b[2J", "{") for n in range(30)]
    columns = [list(column) for column in zip(*entries, strict=True)]
    pq.write_table(pa.table(columns, schema=row_schema.UNREADABLE), tmp_path / "unreadable.parquet")
    lines = unreadable_lines(tmp_path / "unreadable.parquet")
    assert lines[1] == "unreadable: 30" and lines[-1] == "  and 10 more in unreadable.parquet"
    assert lines[2] == "  s  a.jsonl  malformed JSON⟨U+001B⟩[2J"  # line 0: the whole file
    assert lines[3].startswith("  s  a.jsonl:1  ")


def test_nothing_unreadable_is_said_too(tmp_path: Path) -> None:
    pq.write_table(row_schema.UNREADABLE.empty_table(), tmp_path / "unreadable.parquet")
    assert unreadable_lines(tmp_path / "unreadable.parquet") == ["", "unreadable: nothing"]
