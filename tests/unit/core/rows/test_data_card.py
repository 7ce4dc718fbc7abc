"""The data card counts what was used, and says under which licences."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.rows import data_card


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """In each split four rows of three projects, of which one was too long to be used."""
    paths = {}
    for split in data_card.SPLITS:
        tokens = tmp_path / split
        tokens.mkdir()
        pq.write_table(pa.table({"row_id": ["a", "b", "c"]}), tokens / "rows.parquet")
        pq.write_table(pa.table({"tokens": [30, 12]}), tokens / "windows.parquet")
        prompts = {"row_id": ["a", "b", "c", "d"], "project": ["p", "p", "q", "r"]}
        paths[f"tokenize.{split}"] = tokens
        paths[f"prompt.{split}"] = tmp_path / f"{split}.parquet"
        pq.write_table(pa.table(prompts), paths[f"prompt.{split}"])
    kept = {"row_id": ["a", "b", "c", "d", "e"], "licence": ["MIT", "MIT", "", "GPL", "GPL"]}
    paths["filter.kept"] = tmp_path / "kept.parquet"
    pq.write_table(pa.table(kept), paths["filter.kept"])
    split = {"unit": "file", "units": {"train": 8}, "projects": {"all": 1}}
    paths["prompt.split"] = tmp_path / "split.json"
    paths["prompt.split"].write_text(json.dumps(split))
    return paths


def test_rows_that_were_too_long_are_not_counted(tables: dict[str, Path]) -> None:
    train = data_card.count(tables).splits[0]
    assert train == data_card.Split("train", 3, 42, 2, "file")


def test_licences_are_those_of_the_rows_trained_on(tables: dict[str, Path]) -> None:
    assert data_card.count(tables).licences == (("MIT", 2), ("", 1))


def test_it_says_how_the_rows_were_split(tables: dict[str, Path]) -> None:
    assert data_card.count(tables).split == "Split by file: 8 files of 1 project."


def test_it_is_read_as_it_was_written(tables: dict[str, Path], tmp_path: Path) -> None:
    card = data_card.count(tables)
    card.write(tmp_path / "card.json")
    assert data_card.DataCard.read(tmp_path / "card.json") == card
