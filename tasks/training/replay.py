"""The rows of a training that goes on from the champion: all new ones, and a replay of old ones.

In: the tokenized split, the one that the champion was trained on, a share. Out: a folder of the
same form with the chosen rows, packed anew in the order that they stand in. Which old rows are
taken follows from their ids and the seed alone. Replay keeps what was learned (experience replay;
Rolnick et al. 2019).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.models.packed_dataset import ROWS_FILE, WINDOWS_FILE
from tasks.core.models.packing import pack_in_order
from tasks.core.rows import row_schema
from tasks.core.rows.hash_rank import choose

GROUP_ROWS = 1000


@dataclass(frozen=True)
class Replay:
    """What was chosen.

    Attributes:
        new: Rows that the champion was not trained on.
        old: Rows that it was trained on, as many as are seen again.
        known: Rows that it was trained on and that are there.
    """

    new: int
    old: int
    known: int


def write_chosen(split: Path, before: Path, share: float, seed: int, out: Path) -> Replay:
    """Write the rows to train on to `out`.

    Args:
        split: Tokenized rows of now.
        before: Those of the champion.
        share: Old rows in all that are trained on; 1, or no new row at all: every row.
        seed: Of the choice.
        out: A folder; made, and replaced if it is there.
    """
    ids = _ids(split)
    seen = set(_ids(before))
    is_old = np.fromiter((i in seen for i in ids), dtype=bool, count=len(ids))
    old = choose_old(ids, is_old, share, seed)
    chosen = ~is_old
    chosen[old] = True
    out.mkdir(parents=True, exist_ok=True)
    lengths = _copy_rows(split / ROWS_FILE, chosen, out / ROWS_FILE)
    longest = int(pc.max(pq.read_table(split / WINDOWS_FILE, columns=["tokens"])["tokens"]).as_py())
    pq.write_table(_packed(lengths, longest), out / WINDOWS_FILE, compression="zstd")
    return Replay(int((~is_old).sum()), len(old), int(is_old.sum()))


def choose_old(ids: list[str], is_old: NDArray[np.bool_], share: float, seed: int) -> list[int]:
    """Indexes of the old rows that are seen again, so that they make up `share` of all chosen."""
    places = np.flatnonzero(is_old).tolist()
    new = len(ids) - len(places)
    if share == 1 or not new:
        return places
    wanted = round(new * share / (1 - share))
    return choose(ids, places, wanted, seed)


def _ids(folder: Path) -> list[str]:
    column = pq.read_table(folder / ROWS_FILE, columns=["row_id"])["row_id"]
    ids: list[str] = column.to_pylist()
    return ids


def _copy_rows(source: Path, chosen: NDArray[np.bool_], target: Path) -> list[int]:
    """Copy the chosen rows; returns their lengths in tokens."""
    lengths: list[int] = []
    done = 0
    with pq.ParquetWriter(target, row_schema.TOKENS, compression="zstd") as writer:
        for batch in pq.ParquetFile(source).iter_batches(GROUP_ROWS):
            kept = batch.filter(pa.array(chosen[done : done + len(batch)]))
            done += len(batch)
            if len(kept):
                writer.write_batch(kept.cast(row_schema.TOKENS))
                lengths += pc.list_value_length(kept.column("input_ids")).to_pylist()
    return lengths


def _packed(lengths: list[int], window_tokens: int) -> pa.Table:
    """The packing plan of consecutive rows."""
    rows = list(pack_in_order(range(len(lengths)), lengths.__getitem__, window_tokens))
    tokens = [sum(lengths[index] for index in window) for window in rows]
    return pa.table([list(range(len(rows))), rows, tokens], schema=row_schema.WINDOWS)
