"""Train, validation and test: the split of every row, and the rows that are in none.

The unit of the split is the first of `LEVELS` that is fine enough: it has at least three units, and
their split leaves no split empty and train at least half of its share of the rows. A data set of
many projects is split by project; a single repository by folder or, most often, by file.

A unit goes to a split by a hash: of the project's name where the project has given itself one, else
of the least row id in the unit, among its rows of whole files where it has some. So another name of
a file, folder or source moves nothing, other row types of a source that reads whole files move
nothing, and a new row moves its own unit only if its id is the least one of it. Test is taken from
one end of the hash's range and validation from the other, so that changing one share moves no unit
between the two. An end with less than half of its share of the rows gets the next units until it
has that, at least one; the last of them return to train once there are more rows below the share.
Test also gets `prompt.min_test_units`, as far as they are no more than a fifth of all. If new rows
change the level itself, rows move; `prompt.split` fixes it.

The filter removes duplicates, so no two rows here are equal; but two rows may both be near
duplicates of a removed one. Such a cluster may span units and so splits: only its rows in the
first of train, validation and test stay.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.errors import PipelineError
from tasks.core.rows.hash_rank import RANKS, choose, hash_rank

SPLITS = ("train", "validation", "test")
LEVELS = ("project", "folder", "file", "cluster")  # the coarsest first
COLUMNS = ["row_id", "kind", "project", "source", "path", "cluster", "date"]
WHOLE_FILE = "file"  # kind of the rows that other row types of a source do not change
DROPPED = -1
LEAST = 0.5  # part of its share of the rows that a split has at least
MOST_TEST = 5  # one unit in so many is held out to reach `prompt.min_test_units`

Numbers = NDArray[np.int8]


@dataclass
class RowSplits:
    """The split of every row.

    Attributes:
        numbers: Position of each row's split in `SPLITS`, or `DROPPED`.
        unit: Unit of the split: one of `LEVELS`, "row" where no row names a project, or "commit"
            (by time).
        units: Units per split.
        names: Unit of every row: the project, else the least row id in the unit or a time.
        dropped: Dropped rows by reason.
    """

    numbers: Numbers
    unit: str
    units: dict[str, int]
    names: pa.Array
    dropped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def by_unit(
        cls,
        rows: pa.Table,
        unit: str,
        validation_share: float,
        test_share: float,
        seed: int,
        min_test_units: int = 0,
    ) -> "RowSplits":
        """Assign rows by the hash of their unit.

        Args:
            rows: With `COLUMNS`.
            unit: One of `LEVELS`; "auto": the first one that is fine enough.
            validation_share: Share of the units, 0..1.
            test_share: Share of the units, 0..1.
            seed: Another seed holds out other units.
            min_test_units: Units that test gets where `test_share` gives fewer.

        Raises:
            PipelineError: There are fewer than three units, or duplicates link all of them.
        """
        clusters = cluster_codes(rows)
        least_train = LEAST * (1 - validation_share - test_share) * len(rows)
        counts: dict[str, int] = {}
        for level in LEVELS if unit == "auto" else (unit,):
            codes, names, ranked = _units(rows, level)
            counts[level] = len(names)
            if len(names) < len(SPLITS):
                continue
            places = np.array([place_of(name, seed) for name in ranked])
            least_test = min(min_test_units, len(names) // MOST_TEST)
            shares = validation_share, test_share
            per_unit = fill(places, np.bincount(codes), *shares, least_test)
            number_of = {n: int((per_unit == i).sum()) for i, n in enumerate(SPLITS)}
            is_row = level == "project" and names.equals(rows["row_id"].combine_chunks())
            named = "row" if is_row else level
            splits = cls(per_unit[codes], named, number_of, names.take(pa.array(codes)))
            splits.separate(clusters)
            found = splits.rows()
            is_last = level == LEVELS[-1] or unit != "auto"
            if all(found.values()) and (is_last or found["train"] >= least_train):
                return splits
        raise _too_little(counts, len(rows), unit)

    def drop(self, which: NDArray[np.bool_], reason: str) -> None:
        """Take rows out of their splits and count them."""
        if number := int(which.sum()):
            self.dropped[reason] = self.dropped.get(reason, 0) + number
        self.numbers[which] = DROPPED

    def separate(self, clusters: NDArray[np.int64]) -> None:
        """Drop rows so that no cluster (0, 1, 2 ... for each row) is in two splits."""
        first = np.full(int(clusters.max(initial=-1)) + 1, len(SPLITS), dtype=np.int8)
        present = self.numbers != DROPPED
        np.minimum.at(first, clusters[present], self.numbers[present])
        self.drop(present & (self.numbers != first[clusters]), "cluster_in_another_split")

    def hold_out(
        self, row_ids: Sequence[str], clusters: NDArray[np.int64], chosen: Collection[str]
    ) -> None:
        """Drop the rows that become problems, and all rows in a cluster with one of them."""
        own = np.array([i in chosen for i in row_ids])
        tied = np.isin(clusters, clusters[own]) & ~own & (self.numbers != DROPPED)
        self.drop(own, "held_out_as_problem")
        self.drop(tied, "tied_to_a_problem")

    def cap(self, row_ids: Sequence[str], caps: Sequence[int | None], seed: int) -> None:
        """Drop the rows of each split beyond its cap."""
        for number, at_most in enumerate(caps):
            members = np.flatnonzero(self.numbers == number)
            if at_most is not None and len(members) > at_most:
                beyond = self.numbers == number
                beyond[choose(row_ids, members.tolist(), at_most, seed)] = False
                self.drop(beyond, f"over_cap_{SPLITS[number]}")

    def test_units(self) -> int:
        """Units of the test split that still have rows."""
        held_out = self.names.filter(pa.array(self.numbers == SPLITS.index("test")))
        return int(pc.count_distinct(held_out).as_py())

    def rows(self) -> dict[str, int]:
        """Rows per split."""
        return {name: int((self.numbers == number).sum()) for number, name in enumerate(SPLITS)}


def cluster_codes(rows: pa.Table) -> NDArray[np.int64]:
    """A number for each cluster of duplicates, one entry per row."""
    codes = rows.column("cluster").combine_chunks().dictionary_encode().indices
    return np.asarray(codes).astype(np.int64)


def fill(
    places: NDArray[np.float64],
    sizes: NDArray[np.int64],
    validation_share: float,
    test_share: float,
    least_test: int = 0,
) -> Numbers:
    """The split of each unit: test is the low end of the range 0..1, validation the high one.

    Args:
        places: Of at least three units.
        sizes: Rows of each.
        validation_share: Part of the range.
        test_share: Part of the range.
        least_test: Units that test has at least.
    """
    total = len(places)
    order = np.argsort(places, kind="stable")
    below = max(least_test, int((places < test_share).sum()))
    test = _count(sizes[order], below, test_share)
    at_end = int((places >= 1 - validation_share).sum())
    validation = _count(sizes[order[::-1]], at_end, validation_share)
    while test + validation >= total:
        if test > validation:
            test -= 1
        else:
            validation -= 1
    numbers = np.full(total, SPLITS.index("train"), dtype=np.int8)
    numbers[order[:test]] = SPLITS.index("test")
    numbers[order[total - validation :]] = SPLITS.index("validation")
    return numbers


def _count(sizes: NDArray[np.int64], below: int, share: float) -> int:
    """How many of the units, in their order, make up a split: those `below` the share, and more
    until they have half of that share of the rows."""
    rows = sizes.cumsum()
    return max(below, int(np.searchsorted(rows, LEAST * share * rows[-1])) + 1)


def place_of(name: str, seed: int) -> float:
    """The place of a unit's name in the range 0..1."""
    return int.from_bytes(hash_rank(seed, name), "big") / RANKS


def _units(rows: pa.Table, level: str) -> tuple[NDArray[np.int64], pa.Array, list[str]]:
    """The unit of every row as a number; the name of each unit; what each unit is ranked by."""
    places = _places(rows, level).dictionary_encode()
    units = pa.array(np.arange(len(places.dictionary)))
    preference = pc.if_else(pc.equal(rows.column("kind"), WHOLE_FILE), "0", "1")
    ids = pc.binary_join_element_wise(preference, rows.column("row_id"), "")
    table = pa.table({"unit": places.indices.cast(pa.int64()), "id": ids})
    least = table.group_by("unit").aggregate([("id", "min")]).combine_chunks()
    order = pc.index_in(units, least.column("unit").combine_chunks())
    by_text = pc.utf8_slice_codeunits(least.column("id_min").combine_chunks().take(order), 1)
    names = places.dictionary if level == "project" else by_text
    ranked = [
        name if level == "project" and not name.endswith("/") else row_id
        for name, row_id in zip(names.to_pylist(), by_text.to_pylist(), strict=True)
    ]
    return np.asarray(places.indices).astype(np.int64), names, ranked


def _places(rows: pa.Table, level: str) -> pa.Array:
    """The unit of every row as a text that no other unit of the level has.

    A row that is its own project is its own unit on every level but that of clusters.
    """
    columns = {name: rows.column(name).combine_chunks() for name in COLUMNS}
    if level in ("project", "cluster"):
        return pc.fill_null(columns[level], "")
    path = columns["path"]
    if level == "folder":
        path = pc.replace_substring_regex(path, r"(^|/)[^/]*$", "")
    place = pc.binary_join_element_wise(columns["source"], columns["project"], path, "\0")
    is_own = pc.equal(columns["project"], columns["row_id"])
    return pc.if_else(is_own, columns["project"], place)


def _too_little(counts: dict[str, int], rows: int, unit: str) -> PipelineError:
    found = ", ".join(f"{number:,} {plural(level, number)}" for level, number in counts.items())
    remedy = (
        "Give `ingest.sources` more rows, or let the filter keep more (`finetune show filter`)."
    )
    if unit != "auto":
        remedy = "Set prompt.split to auto, which takes a smaller unit where it has to."
    return PipelineError(
        f"too little data: {rows:,} rows in {found}; train, validation and test need three that "
        f"are no near duplicates",
        remedy,
    )


def plural(unit: str, number: int) -> str:
    """ "file" or "files"."""
    return unit if number == 1 else f"{unit}s"
