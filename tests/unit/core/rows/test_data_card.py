"""The data card counts what was used, and says under which licences."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.rows import data_card


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """Four training rows of two projects, of which one was too long to be used."""
    tokens = tmp_path / "train"
    tokens.mkdir()
    pq.write_table(pa.table({"row_id": ["a", "b", "c"]}), tokens / "rows.parquet")
    pq.write_table(pa.table({"tokens": [30, 12]}), tokens / "windows.parquet")
    prompts = {"row_id": ["a", "b", "c", "d"], "project": ["p", "p", "q", "r"]}
    pq.write_table(pa.table(prompts), tmp_path / "prompts.parquet")
    kept = {"row_id": ["a", "b", "c", "d", "e"], "licence": ["MIT", "MIT", "", "GPL", "GPL"]}
    pq.write_table(pa.table(kept), tmp_path / "kept.parquet")
    return {
        "tokenize.train": tokens,
        "prompt.train": tmp_path / "prompts.parquet",
        "filter.kept": tmp_path / "kept.parquet",
    }


def test_rows_that_were_too_long_are_not_counted(tables: dict[str, Path]) -> None:
    assert data_card.read_splits(tables) == (data_card.Split("train", 3, 42, 2),)


def test_licences_are_those_of_the_rows_trained_on(tables: dict[str, Path]) -> None:
    found = data_card.read_licences(tables["filter.kept"], tables["tokenize.train"])
    assert found == (("MIT", 2), ("", 1))


def test_what_is_not_there_is_left_out() -> None:
    assert data_card.read_splits({}) == ()
    assert data_card.read_licences(None, None) == ()
