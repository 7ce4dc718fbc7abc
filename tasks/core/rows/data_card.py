"""Data card: rows, tokens, projects (or other units of the split) and licences of the training,
validation and test data.

Counted from the tables, one column at a time, so memory stays small. A missing table leaves out its
line.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One line of the data card; rows that tokenization dropped are not counted."""

    name: str
    rows: int
    tokens: int
    projects: int = 0
    unit: str = "project"


def read_splits(paths: Mapping[str, Path]) -> tuple[Split, ...]:
    """The splits of which both outputs exist: "tokenize.NAME" and "prompt.NAME"."""
    found = []
    unit = _read_split(paths.get("prompt.split")).get("unit", "project")
    for name in SPLITS:
        tokens, prompts = paths.get(f"tokenize.{name}"), paths.get(f"prompt.{name}")
        if tokens is None or prompts is None:
            continue
        used = _column(tokens / "rows.parquet", "row_id")
        table = pq.read_table(prompts, columns=["row_id", "project"])
        projects = table["project"].filter(pc.is_in(table["row_id"], used))
        total = pc.sum(_column(tokens / "windows.parquet", "tokens")).as_py() or 0
        found.append(Split(name, len(used), total, pc.count_distinct(projects).as_py(), unit))
    return tuple(found)


def split_line(path: Path | None) -> str:
    """How the rows were split, in one sentence; "" if unknown.

    Args:
        path: split.json of the stage prompt.
    """
    if not (split := _read_split(path)):
        return ""
    units, projects, unit = sum(split["units"].values()), split["projects"]["all"], split["unit"]
    of = "" if unit == "project" else f" ({units:,} {unit}{'s' * (units != 1)})"
    return f"Split by {unit}: {projects:,} project{'s' * (projects != 1)}{of}."


def _read_split(path: Path | None) -> Mapping[str, Any]:
    """split.json; {} where there is none."""
    if path is None or not path.is_file():
        return {}
    found = json.loads(path.read_bytes())
    return found if isinstance(found, dict) else {}


def read_licences(kept: Path | None, train: Path | None) -> tuple[tuple[str, int], ...]:
    """(Licence, rows) of the training rows, the most frequent first; "" if unknown.

    Args:
        kept: The output `filter.kept`.
        train: The output `tokenize.train`.
    """
    if kept is None or train is None:
        return ()
    table = pq.read_table(kept, columns=["row_id", "licence"])
    used = _column(train / "rows.parquet", "row_id")
    counts = pc.value_counts(table["licence"].filter(pc.is_in(table["row_id"], used))).to_pylist()
    pairs = [(count["values"] or "", count["counts"]) for count in counts]
    return tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _column(path: Path, name: str) -> pa.Array:
    return pq.read_table(path, columns=[name])[name].combine_chunks()
