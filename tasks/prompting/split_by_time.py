"""Split by time: train on what existed before a date, test on what came after.

A row is dated by the last commit that changed its file (an edit by its own commit), so a file that
existed before the date but was changed later is tested on: its text did not exist before. Rows of
one time stay together. Rows without a date, of other sources than git, are trained on.
"""

import numpy as np
import pyarrow as pa

from tasks.core.errors import PipelineError
from tasks.prompting.split import SPLITS, RowSplits
from tasks.prompting.units import UnitNames, cluster_codes


def split_by_time(
    rows: pa.Table, split_date: str | None, validation_share: float, test_share: float
) -> RowSplits:
    """Assign rows by their date.

    Args:
        rows: With `split.COLUMNS`.
        split_date: Test begins here, ISO 8601; None: by `test_share`.
        validation_share: Share of the dated rows, the newest before those of test.
        test_share: Share of the dated rows, the newest ones.

    Raises:
        PipelineError: No row has a date, or a split is empty.
    """
    column = rows.column("date").combine_chunks()
    dates = np.array(column.to_pylist(), dtype=np.str_)
    dated = dates != ""
    times, inverse, counts = np.unique(dates[dated], return_inverse=True, return_counts=True)
    if not len(times):
        raise PipelineError(
            f"prompt.split is time, and none of {len(rows):,} rows has a date",
            "Set prompt.split to auto; only rows of sources of kind git have a date.",
        )
    newest_first = counts[::-1].cumsum()
    if split_date is None:
        test = len(times) - _least_groups(newest_first, test_share * dated.sum())
    else:
        test = int(np.searchsorted(times, split_date))
    held_out = int(counts[test:].sum())
    validation = len(times) - _least_groups(newest_first, held_out + validation_share * dated.sum())
    validation = min(validation, test - 1)
    by_time = np.zeros(len(times), dtype=np.int8)
    by_time[max(validation, 0) :] = SPLITS.index("validation")
    by_time[test:] = SPLITS.index("test")
    numbers = np.full(len(rows), SPLITS.index("train"), dtype=np.int8)
    numbers[dated] = by_time[inverse]
    units = {name: int((by_time == number).sum()) for number, name in enumerate(SPLITS)}
    splits = RowSplits(numbers, "commit", units, UnitNames(column))
    splits.separate(cluster_codes(rows))
    if empty := [name for name, number in splits.rows().items() if not number]:
        raise PipelineError(
            f"the split by time leaves no row for {' and '.join(empty)}: {int(dated.sum()):,} rows "
            f"of {len(times):,} commits from {times[0]} to {times[-1]}"
            + (f", prompt.split_date {split_date}" if split_date else ""),
            "Set prompt.split to auto"
            + (", or prompt.split_date to another date." if len(times) >= len(SPLITS) else "."),
        )
    return splits


def _least_groups(cumulated: np.ndarray[tuple[int], np.dtype[np.int64]], wanted: float) -> int:
    """How many groups hold at least `wanted` rows, at least one."""
    return max(1, min(len(cumulated), int(np.searchsorted(cumulated, wanted)) + 1))
