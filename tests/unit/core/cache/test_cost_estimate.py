"""Seconds of a run that was interrupted and resumed."""

import json
import os
import time
from pathlib import Path

import pytest

from tasks.core.cache import cost_estimate


def test_all_segments_count_also_those_that_end_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), cost_estimate.segment(tmp_path):
        time.sleep(0.05)
        raise KeyboardInterrupt
    with cost_estimate.segment(tmp_path):
        time.sleep(0.05)
    assert 0.1 <= cost_estimate.spent(tmp_path) < 10


def test_a_killed_segment_counts_up_to_its_last_write(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / cost_estimate.SPENT).write_text(json.dumps({"seconds": 5, "since": 1000}))
    checkpoint = tmp_path / "scratch/step"
    checkpoint.touch()
    os.utime(checkpoint, (1030, 1030))
    assert cost_estimate.spent(tmp_path) == 35
