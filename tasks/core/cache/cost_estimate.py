"""Cost estimate of a stage: seconds of its past runs, by rows."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.core.cache.manifest import Manifest


def rows_out(manifest: Manifest | None) -> int | None:
    """Rows of an artifact; None if there is no artifact or it has no rows."""
    return manifest.summary.get("rows_out") if manifest else None


def rows_in(manifest: Manifest) -> int | None:
    """Rows that a stage read."""
    return manifest.summary.get("rows_in")


def alike(config: Mapping[str, Any], near: Manifest, past: Sequence[Manifest]) -> list[Manifest]:
    """Past runs with the same settings, which determine the cost (steps, epochs); if there are
    none, the nearest artifact alone."""
    return [m for m in past if m.parts.get("config") == config] or [near]


def seconds_for(rows: float | None, past: Sequence[Manifest]) -> float:
    """Estimated seconds of a run over `rows` rows.

    Past runs of different sizes are fitted by a straight line, so that a constant start-up time is
    not scaled; runs of one size are scaled by rows. If the rows are unknown, the median.
    """
    known = [(n, m.seconds) for m in past if (n := rows_in(m))]
    if rows is None or not known:
        return statistics.median(m.seconds for m in past)
    sizes = [n for n, _ in known]
    if len(set(sizes)) > 1:
        slope, start = statistics.linear_regression(sizes, [s for _, s in known])
        if slope >= 0 and start >= 0:
            return start + slope * rows
    return rows * statistics.median(seconds / n for n, seconds in known)
