"""Units of the split: which rows belong together on each level, and the place of each unit."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.rows.disk_arrays import BATCH_ROWS, text_numbers
from tasks.core.rows.hash_rank import RANKS, hash_rank

LEVELS = ("project", "folder", "file", "cluster")  # the coarsest first
COLUMNS = ["row_id", "kind", "project", "source", "path", "cluster", "date"]
WHOLE_FILE = "file"  # kind of the rows that other row types of a source do not change


@dataclass(frozen=True)
class UnitNames:
    """The name of each row's unit: a text of that row, or of the row of the unit with the least id.

    Attributes:
        texts: A text of each row.
        rows: Which row's text it is; None: that of the row itself.
    """

    texts: pa.Array
    rows: NDArray[np.int64] | None = None

    def of(self, first: int, count: int) -> pa.Array:
        """The names of `count` rows."""
        if self.rows is None:
            return self.texts.slice(first, count)
        return self.texts.take(pa.array(self.rows[first : first + count]))

    def count(self, which: NDArray[np.bool_]) -> int:
        """The number of different units of some rows."""
        if self.rows is None:
            return int(pc.count_distinct(self.texts.filter(pa.array(which))).as_py())
        return len(np.unique(self.rows[which]))


def is_one_of(row_ids: pa.Array, chosen: Collection[str]) -> NDArray[np.bool_]:
    """Which of the rows are chosen."""
    return np.array(pc.is_in(row_ids, pa.array(sorted(chosen), pa.string())), dtype=bool)


def cluster_codes(rows: pa.Table) -> NDArray[np.int64]:
    """A number for each cluster of duplicates, one entry per row."""
    return text_numbers(rows.column("cluster"))


def by_preference(rows: pa.Table) -> NDArray[np.int64]:
    """The rows in the order in which a unit is named by one of them: whole files first, then by
    id."""
    table = pa.table(
        {
            "is_part": pc.not_equal(rows.column("kind"), WHOLE_FILE),
            "row_id": rows.column("row_id"),
        }
    )
    keys = [("is_part", "ascending"), ("row_id", "ascending")]
    return np.asarray(pc.sort_indices(table, keys)).astype(np.int64)


def ranks(
    least: NDArray[np.int64], ids: pa.Array, projects: pa.Array | None, seed: int
) -> NDArray[np.float64]:
    """The place of each unit, given by the row with its least id: by its project, where that has a
    name of its own, else by that id."""
    places = []
    for first in range(0, len(least), BATCH_ROWS):
        rows = pa.array(least[first : first + BATCH_ROWS])
        ranked = ids.take(rows).to_pylist()
        if projects is not None:
            named = zip(projects.take(rows).to_pylist(), ranked, strict=True)
            ranked = [row_id if name.endswith("/") else name for name, row_id in named]
        places.append(np.array([place_of(name, seed) for name in ranked]))
    return np.concatenate(places)


def unit_numbers(rows: pa.Table, level: str) -> NDArray[np.int64]:
    """The unit of every row as a number.

    A row that is its own project is its own unit on every level but that of clusters.
    """
    if level in ("project", "cluster"):
        return text_numbers(rows.column(level))
    return text_numbers(pa.chunked_array([_texts(batch, level) for batch in rows.to_batches()]))


def _texts(rows: pa.RecordBatch, level: str) -> pa.Array:
    """A text for the unit of every row that no other unit of the level has."""
    columns = {name: rows.column(name) for name in COLUMNS}
    path = columns["path"]
    if level == "folder":
        path = pc.replace_substring_regex(path, r"(^|/)[^/]*$", "")
    place = pc.binary_join_element_wise(columns["source"], columns["project"], path, "\0")
    is_own = pc.equal(columns["project"], columns["row_id"])
    return pc.if_else(is_own, columns["project"], place)


def place_of(name: str, seed: int) -> float:
    """The place of a unit's name in the range 0..1."""
    return int.from_bytes(hash_rank(seed, name), "big") / RANKS
