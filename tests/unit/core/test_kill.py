"""SIGKILL at every step that touches the disk: nothing half is whole, nothing done twice."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core import upkeep
from tasks.core.memo import Memo
from tasks.core.store import is_locked

CHILD = Path(__file__).with_name("kill_child.py")
KILLS_IN_A_ROW = 100


def child(tmp_path, kill_at):
    command = [sys.executable, CHILD, tmp_path / "artifacts", tmp_path / "words.txt"]
    done = subprocess.run(
        [*command, tmp_path / "log", str(kill_at)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -9), done.stderr
    return done


def line(tmp_path):
    """What the last stage's whole artifacts hold."""
    return {p.read_text() for p in (tmp_path / "artifacts/join").glob("*/line.txt")}


def check_store(tmp_path):
    root = tmp_path / "artifacts"
    damaged = [p for p in upkeep.verify(root, Memo(None), deep=True) if p[1] is not None]
    assert damaged == []
    assert [p for p in (root / ".work").glob("*") if not is_locked(root / ".locks" / p.name)] == []


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_hundred_kills_in_a_row_lose_nothing_and_leave_nothing(tmp_path):
    (tmp_path / "words.txt").write_text("pear fig apple")
    steps = int(child(tmp_path, 0).stdout)
    chance = random.Random(0)
    killed = 0
    while killed < KILLS_IN_A_ROW:
        words = f"pear fig apple {killed // 7}"  # new work every few kills
        (tmp_path / "words.txt").write_text(words)
        killed += child(tmp_path, chance.randint(1, steps)).returncode == -9
        if killed % 7 == 6:
            (tmp_path / "log").write_text("")
            child(tmp_path, 0)
            assert " ".join(sorted(words.split())) in line(tmp_path)
            check_store(tmp_path)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_whatever_the_step_a_finished_stage_does_not_run_again(tmp_path):
    (tmp_path / "words.txt").write_text("b a")
    steps = int(child(tmp_path, 0).stdout)
    for n, step in enumerate(range(1, steps, 2)):
        (tmp_path / "words.txt").write_text(f"b a {n}")
        (tmp_path / "log").write_text("")
        published = {p.name for p in (tmp_path / "artifacts").glob("*/*") if len(p.name) == 12}
        child(tmp_path, step)
        done = [
            p.parent.name
            for p in (tmp_path / "artifacts").glob("*/*")
            if len(p.name) == 12 and p.name not in published
        ]
        (tmp_path / "log").write_text("")
        child(tmp_path, 0)
        again = (tmp_path / "log").read_text().split()
        assert set(again) & set(done) == set(), f"killed at step {step}"


def test_lock_of_a_killed_run_is_free(tmp_path):
    (tmp_path / "words.txt").write_text("b a")
    child(tmp_path, 12)
    locks = list((tmp_path / "artifacts/.locks").iterdir())
    assert locks
    assert not any(is_locked(lock) for lock in locks)
