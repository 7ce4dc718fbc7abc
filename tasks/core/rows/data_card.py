"""Data card: rows, tokens, projects and licences of the training, validation and test data.

Counted from the tables, one column at a time, so memory stays small. A missing table leaves out its
line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


def read_splits(paths: Mapping[str, Path]) -> tuple[Split, ...]:
    """The splits of which both outputs exist: "tokenize.NAME" and "prompt.NAME"."""
    found = []
    for name in SPLITS:
        tokens, prompts = paths.get(f"tokenize.{name}"), paths.get(f"prompt.{name}")
        if tokens is None or prompts is None:
            continue
        used = _column(tokens / "rows.parquet", "row_id")
        table = pq.read_table(prompts, columns=["row_id", "project"])
        projects = table["project"].filter(pc.is_in(table["row_id"], used))
        total = pc.sum(_column(tokens / "windows.parquet", "tokens")).as_py() or 0
        found.append(Split(name, len(used), total, pc.count_distinct(projects).as_py()))
    return tuple(found)


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
