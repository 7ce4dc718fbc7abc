from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.commands.show.rows import (
    DIM,
    GREEN,
    PLAIN,
    find_row,
    numbers,
    token_lines,
    unreadable_lines,
)
from tasks.core.rows import row_schema

WORDS = {1: "Say ", 2: "it.\n", 3: "x = ", 4: "1", 0: "<|endoftext|>"}
ROW = {"row_id": "r", "input_ids": [1, 2, 3, 4, 0], "prompt_tokens": 2}


def decode(ids: list[int]) -> str:
    return "".join(WORDS[i] for i in ids)


def test_trained_tokens_are_told_from_masked_ones_without_color() -> None:
    assert token_lines(ROW, decode, color=False) == [
        "row r: 5 tokens, 2 masked, 3 trained",
        "[masked]",
        "Say it.\n",
        "[/masked]",
        "[trained]",
        "x = 1<|endoftext|>",
        "[/trained]",
    ]


def test_with_color_each_token_is_dim_or_green() -> None:
    _, text = token_lines(ROW, decode, color=True)
    assert text == f"{DIM}Say it.\n{PLAIN}{GREEN}x = 1<|endoftext|>{PLAIN}"


@pytest.mark.parametrize("color", [True, False])
def test_what_stands_in_a_row_cannot_steer_the_terminal(color: bool) -> None:
    shown = token_lines(
        ROW, lambda ids: "\x1b]0;title\x07\u202eabc" if ids == [1, 2] else "", color
    )
    text = "\n".join(shown)
    assert "⟨U+001B⟩]0;title⟨U+0007⟩⟨U+202E⟩abc" in text
    assert "\x1b]" not in text and "\u202e" not in text


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
