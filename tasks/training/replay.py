"""Experience replay for a warm start: all new rows and a sample of the champion's old rows.

In: the tokenized split, the one that the champion was trained on, a share of old rows. Out: a
folder in the same format with the selected rows in stored order, packed again. The sample depends
only on row ids and the seed. Replay counters forgetting (Rolnick et al. 2019).
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
    """Row counts of a mix.

    Attributes:
        new: Rows that the champion was not trained on, all of them selected.
        old: Rows that it was trained on and that are selected.
        known: Rows of the split that it was trained on.
    """

    new: int
    old: int
    known: int


def write_replay_mix(split: Path, before: Path, share: float, seed: int, out: Path) -> Replay:
    """Write the selected rows to `out`.

    Args:
        split: Current tokenized rows.
        before: Tokenized rows of the champion.
        share: Share of old rows among the selected; 1, or no new row at all: every row.
        seed: Of the sample.
        out: Folder, created if missing; its files are overwritten.
    """
    ids = _ids(split)
    seen = set(_ids(before))
    is_old = np.fromiter((i in seen for i in ids), dtype=bool, count=len(ids))
    old = sample_old(ids, is_old, share, seed)
    selected = ~is_old
    selected[old] = True
    out.mkdir(parents=True, exist_ok=True)
    lengths = _copy_rows(split / ROWS_FILE, selected, out / ROWS_FILE)
    longest = int(pc.max(pq.read_table(split / WINDOWS_FILE, columns=["tokens"])["tokens"]).as_py())
    rows = list(pack_in_order(range(len(lengths)), lengths.__getitem__, longest))
    tokens = [sum(lengths[i] for i in window) for window in rows]
    windows = pa.table([range(len(rows)), rows, tokens], schema=row_schema.WINDOWS)
    pq.write_table(windows, out / WINDOWS_FILE, compression="zstd")
    return Replay(int((~is_old).sum()), len(old), int(is_old.sum()))


def sample_old(ids: list[str], is_old: NDArray[np.bool_], share: float, seed: int) -> list[int]:
    """Indexes of old rows that make up `share` of all selected rows, or of all old rows.

    Rows are ranked by a hash of seed and id, so a new row changes at most one of the selected.
    """
    known = np.flatnonzero(is_old).tolist()
    new = len(ids) - len(known)
    if share == 1 or not new:
        return known
    wanted = round(new * share / (1 - share))
    return choose(ids, known, wanted, seed)


def _ids(folder: Path) -> list[str]:
    column = pq.read_table(folder / ROWS_FILE, columns=["row_id"])["row_id"]
    ids: list[str] = column.to_pylist()
    return ids


def _copy_rows(source: Path, selected: NDArray[np.bool_], target: Path) -> list[int]:
    """Copy the selected rows; returns their lengths in tokens."""
    lengths: list[int] = []
    done = 0
    is_spanned = "spans" in pq.read_schema(source).names
    schema = row_schema.SPANNED_TOKENS if is_spanned else row_schema.TOKENS
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in pq.ParquetFile(source).iter_batches(GROUP_ROWS):
            kept = batch.filter(pa.array(selected[done : done + len(batch)]))
            done += len(batch)
            if len(kept):
                writer.write_batch(kept.cast(schema))
                lengths += pc.list_value_length(kept.column("input_ids")).to_pylist()
    return lengths
