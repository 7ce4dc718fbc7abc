"""Train, validation and test: the split of every row, and the rows that are in none.

The unit of the split is the project. A project goes to a split by a hash of its name, so new rows
and new projects never move old ones, and code that was trained on is never tested on. Validation is
taken from one end of the hash's range and test from the other, so that changing one share moves no
project between the two.

The filter removes duplicates, so no two rows here are equal; but two rows may both be near
duplicates of a removed one. Such a cluster may span projects and so splits: only its rows in the
first of train, validation and test stay.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.errors import PipelineError
from tasks.core.rows.hash_rank import RANKS, choose, hash_rank

SPLITS = ("train", "validation", "test")
DROPPED = -1


@dataclass
class RowSplits:
    """The split of every row.

    Attributes:
        numbers: Position of each row's split in `SPLITS`, or `DROPPED`.
        projects: Projects per split.
        dropped: Dropped rows by reason.
    """

    numbers: NDArray[np.int8]
    projects: dict[str, int]
    dropped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def by_project(
        cls, projects: pa.ChunkedArray, validation_share: float, test_share: float, seed: int
    ) -> "RowSplits":
        """Assign rows by the hash of their project.

        Raises:
            PipelineError: A split has no project: training needs one split to be watched on, the
                evaluation needs another.
        """
        column = projects.combine_chunks().dictionary_encode()
        names = column.dictionary.to_pylist()
        found = [split_of(name or "", validation_share, test_share, seed) for name in names]
        numbers = np.array([SPLITS.index(split) for split in found], dtype=np.int8)
        counts = {split: found.count(split) for split in SPLITS}
        if empty := [split for split in SPLITS if not counts[split]]:
            raise PipelineError(
                f"no project fell into {' and '.join(empty)}: {len(names)} projects, "
                f"validation_share {validation_share:g}, test_share {test_share:g}, seed {seed}",
                "Raise prompt.validation_share and prompt.test_share, try another prompt.seed, or "
                "ingest more projects.",
            )
        return cls(numbers[column.indices.to_numpy()], counts)

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

    def rows(self) -> dict[str, int]:
        """Rows per split."""
        return {name: int((self.numbers == number).sum()) for number, name in enumerate(SPLITS)}


def split_of(project: str, validation_share: float, test_share: float, seed: int) -> str:
    """The split of a project: "train", "validation" or "test"."""
    place = int.from_bytes(hash_rank(seed, project), "big") / RANKS
    if place < test_share:
        return "test"
    return "validation" if place >= 1 - validation_share else "train"
