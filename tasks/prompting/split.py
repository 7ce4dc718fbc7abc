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
Where no smaller unit may be tried, one with more than half of all rows is in train.
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
from numpy.typing import NDArray

from tasks.core.errors import PipelineError
from tasks.core.rows.hash_rank import choose
from tasks.core.rows.split_unit import ROW, count_of
from tasks.prompting.units import (
    LEVELS,
    UnitNames,
    by_preference,
    cluster_codes,
    is_one_of,
    ranks,
    unit_numbers,
)

SPLITS = ("train", "validation", "test")
DROPPED = -1
OVER_CAP = "over_cap_"  # reason of rows beyond the limit of their split, with its name
LEAST = 0.5  # part of its share of the rows that a split has at least
MOST_TEST = 5  # at most one unit in this many is held out to reach `prompt.min_test_units`

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
    names: UnitNames
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
        ids, projects = (rows.column(name).combine_chunks() for name in ("row_id", "project"))
        by_id = by_preference(rows)
        least_train = LEAST * (1 - validation_share - test_share) * len(rows)
        counts: dict[str, int] = {}
        for level in LEVELS if unit == "auto" else (unit,):
            codes = unit_numbers(rows, level)
            # of the rows of a unit, the first one
            least = by_id[np.unique(codes[by_id], return_index=True)[1]]
            counts[level] = len(least)
            if len(least) < len(SPLITS):
                continue
            places = ranks(least, ids, projects if level == "project" else None, seed)
            least_test = min(min_test_units, len(least) // MOST_TEST)
            shares = validation_share, test_share
            is_last = level == LEVELS[-1] or unit != "auto"
            sizes = np.bincount(codes)
            # no smaller unit is left to look for: one with most of the rows is trained on
            free = 2 * sizes <= len(rows) if is_last else np.ones(len(sizes), dtype=bool)
            per_unit = np.full(len(sizes), SPLITS.index("train"), dtype=np.int8)
            in_train = int(free.all())
            per_unit[free] = fill(places[free], sizes[free], *shares, least_test, in_train)
            number_of = {n: int((per_unit == i).sum()) for i, n in enumerate(SPLITS)}
            by_project = level == "project"
            is_row = by_project and len(least) == len(rows) and projects.equals(ids)
            named = UnitNames(projects) if by_project else UnitNames(ids, least[codes])
            splits = cls(per_unit[codes], ROW if is_row else level, number_of, named)
            splits.separate(clusters)
            found = splits.rows()
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
        self, row_ids: pa.Array, clusters: NDArray[np.int64], chosen: Collection[str]
    ) -> None:
        """Drop the rows that become problems, and all rows in a cluster with one of them."""
        own = is_one_of(row_ids, chosen)
        tied = np.isin(clusters, clusters[own]) & ~own & (self.numbers != DROPPED)
        self.drop(own, "held_out_as_problem")
        self.drop(tied, "tied_to_a_problem")

    def cap(self, row_ids: pa.Array, caps: Sequence[int | None], seed: int) -> None:
        """Drop the rows of each split beyond its cap."""
        for number, at_most in enumerate(caps):
            members = np.flatnonzero(self.numbers == number)
            if at_most is not None and len(members) > at_most:
                beyond = self.numbers == number
                ids = row_ids.take(pa.array(members)).to_pylist()
                beyond[members[choose(ids, range(len(ids)), at_most, seed)]] = False
                self.drop(beyond, f"{OVER_CAP}{SPLITS[number]}")

    def test_units(self) -> int:
        """Units of the test split that still have rows."""
        return self.names.count(self.numbers == SPLITS.index("test"))

    def rows(self) -> dict[str, int]:
        """Rows per split."""
        return {name: int((self.numbers == number).sum()) for number, name in enumerate(SPLITS)}


def fill(
    places: NDArray[np.float64],
    sizes: NDArray[np.int64],
    validation_share: float,
    test_share: float,
    least_test: int = 0,
    least_train: int = 1,
) -> Numbers:
    """The split of each unit: test is the low end of the range 0..1, validation the high one.

    Args:
        places: Of at least three units; two without `least_train`.
        sizes: Rows of each.
        validation_share: Part of the range.
        test_share: Part of the range.
        least_test: Units that test has at least.
        least_train: Units that train has at least.
    """
    total = len(places)
    order = np.argsort(places, kind="stable")
    below = max(least_test, int((places < test_share).sum()))
    test = _count(sizes[order], below, test_share)
    at_end = int((places >= 1 - validation_share).sum())
    validation = _count(sizes[order[::-1]], at_end, validation_share)
    while test + validation > total - least_train:
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


def _too_little(counts: dict[str, int], rows: int, unit: str) -> PipelineError:
    found = ", ".join(count_of(number, level) for level, number in counts.items())
    remedy = (
        "Give `ingest.sources` more rows, or let the filter keep more (`finetune show filter`)."
    )
    if unit != "auto":
        remedy = "Set prompt.split to auto, which takes a smaller unit where it has to."
    return PipelineError(
        f"too little data: {rows:,} rows in {found}; train, validation and test need three that "
        f"are not near duplicates of each other",
        remedy,
    )
