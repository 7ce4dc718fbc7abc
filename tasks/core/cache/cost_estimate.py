"""Cost of a stage: seconds of its past runs by rows, and of all segments of an interrupted run."""

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.cache.manifest import Manifest
from tasks.core.system.atomic_write import write_text

SPENT = "spent.json"  # in the work folder of a stage: seconds of its ended segments


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


@contextmanager
def segment(work_folder: Path) -> Iterator[None]:
    """Count a segment of a run, which may be interrupted and resumed, in `spent`."""
    before, start = spent(work_folder), time.time()
    _write(work_folder, {"seconds": before, "since": start})
    try:
        yield
    finally:
        _write(work_folder, {"seconds": before + time.time() - start})


def spent(work_folder: Path) -> float:
    """Seconds of the segments of a run so far; of one that was killed, up to its last write."""
    try:
        noted = json.loads((work_folder / SPENT).read_bytes())
        seconds, since = float(noted["seconds"]), noted.get("since")
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    if since is None:
        return seconds
    written = [path.stat().st_mtime for path in (work_folder / "scratch").glob("**/*")]
    total: float = seconds + max(0.0, max(written, default=since) - since)
    return total


def _write(work_folder: Path, noted: Mapping[str, float]) -> None:
    write_text(work_folder / SPENT, json.dumps(noted), durable=False)
