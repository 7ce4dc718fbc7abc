"""The base model's losses on the rows: quantiles, and the rows that it predicts worst."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

QUANTILES = (10, 50, 90, 99)
WORST = 10
COLUMNS = ["row_id", "source", "path", "line"]


def loss_report(rows: Path, losses: NDArray[np.float64]) -> dict[str, Any]:
    """The part of funnel.json about them.

    Args:
        rows: The rows, as a Parquet file.
        losses: Of each row; NaN: not measured.
    """
    measured = np.flatnonzero(~np.isnan(losses))
    if not len(measured):
        return {"rows": 0, **{f"p{q}": 0.0 for q in QUANTILES}, "worst": []}
    worst = measured[np.argsort(-losses[measured], kind="stable")][:WORST]
    named = pq.read_table(rows, columns=COLUMNS).take(pa.array(worst)).to_pylist()
    return {
        "rows": len(measured),
        **{f"p{q}": round(float(np.percentile(losses[measured], q)), 3) for q in QUANTILES},
        "worst": [
            {"loss": float(losses[place]), **row} for place, row in zip(worst, named, strict=True)
        ],
    }
