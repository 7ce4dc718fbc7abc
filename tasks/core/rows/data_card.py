"""Data card: rows, tokens, projects (or other units of the split) and licences of the training,
validation and test data.

The stage tokenize counts it from the tables, one column at a time, and writes it as an output:
report and model card then depend on a small file instead of all tables. A corrected license of a
source changes the card and reruns no training.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.rows.split_unit import PROJECT, ROW, plural, split_sentence

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One line of the data card; rows that tokenization dropped are not counted."""

    name: str
    rows: int
    tokens: int
    projects: int = 0
    unit: str = PROJECT

    @property
    def unit_heading(self) -> str:
        """Heading of the column of units, next to one of rows."""
        return "Units" if self.unit == ROW else plural(self.unit, 2).capitalize()


@dataclass(frozen=True)
class DataCard:
    """What a model was trained, validated and tested on.

    Attributes:
        splits: Train, validation and test.
        split: How the rows were split, in one sentence; "" if unknown.
        licences: (License, rows) of the training rows, the most frequent first; "" if unknown.
    """

    splits: tuple[Split, ...] = ()
    split: str = ""
    licences: tuple[tuple[str, int], ...] = ()

    @property
    def unit(self) -> str:
        """The unit of the split: "project", "file" ..."""
        return self.splits[0].unit if self.splits else PROJECT

    def write(self, path: Path) -> None:
        """Write the card as JSON."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "DataCard":
        """The card that `write` wrote."""
        raw = json.loads(path.read_bytes())
        licences = tuple((str(name), int(rows)) for name, rows in raw["licences"])
        return cls(tuple(Split(**split) for split in raw["splits"]), raw["split"], licences)


def count(paths: Mapping[str, Path]) -> DataCard:
    """Count the card.

    Args:
        paths: "filter.kept", "prompt.split", and "prompt.NAME" and "tokenize.NAME" of each split.
    """
    unit = _read_split(paths["prompt.split"]).get("unit", PROJECT)
    splits = tuple(_count_split(name, paths, unit) for name in SPLITS)
    licences = _count_licences(paths["filter.kept"], paths["tokenize.train"])
    return DataCard(splits, split_line(paths["prompt.split"]), licences)


def _count_split(name: str, paths: Mapping[str, Path], unit: str) -> Split:
    tokens = paths[f"tokenize.{name}"]
    used = _column(tokens / "rows.parquet", "row_id")
    table = pq.read_table(paths[f"prompt.{name}"], columns=["row_id", "project"])
    projects = table["project"].filter(pc.is_in(table["row_id"], used))
    total = pc.sum(_column(tokens / "windows.parquet", "tokens")).as_py() or 0
    return Split(name, len(used), total, pc.count_distinct(projects).as_py(), unit)


def split_line(path: Path | None) -> str:
    """How the rows were split, in one sentence; "" if unknown.

    Args:
        path: split.json of the stage prompt.
    """
    split = _read_split(path)
    return split_sentence(split) if split else ""


def _read_split(path: Path | None) -> Mapping[str, Any]:
    """split.json; {} where there is none."""
    if path is None or not path.is_file():
        return {}
    found = json.loads(path.read_bytes())
    return found if isinstance(found, dict) else {}


def _count_licences(kept: Path, train: Path) -> tuple[tuple[str, int], ...]:
    table = pq.read_table(kept, columns=["row_id", "licence"])
    used = _column(train / "rows.parquet", "row_id")
    counts = pc.value_counts(table["licence"].filter(pc.is_in(table["row_id"], used))).to_pylist()
    pairs = [(count["values"] or "", count["counts"]) for count in counts]
    return tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _column(path: Path, name: str) -> pa.Array:
    return pq.read_table(path, columns=[name])[name].combine_chunks()
