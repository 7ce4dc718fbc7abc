"""A stop that is sent to the whole process group ends a run in two lines and within seconds."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.slow
LIMIT_S = 30


def start(profile, tmp_path, *changes):
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", str(profile)]
    command += [word for change in changes for word in ("--set", change)]
    log = (tmp_path / "log.txt").open("w")
    run = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    return run, tmp_path / "log.txt"


def wait_for(text, run, log, limit_s=120):
    end = time.monotonic() + limit_s
    while text not in log.read_text():
        assert run.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def stop(run, number):
    """Signal the group; returns the exit code, once all descendants of the run are gone."""
    family = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, number)
    code = run.wait(LIMIT_S)
    _, alive = psutil.wait_procs(family, timeout=LIMIT_S)
    assert alive == []
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_group_signal_at_the_start_of_a_stage_ends_the_run(small_profile, tmp_path, number):
    run, log = start(small_profile, tmp_path)
    wait_for("base: runs", run, log)
    assert stop(run, number) == 128 + number
    text = log.read_text()
    assert text.endswith("stopped; finished stages are kept, run again to continue\n")
    assert "Traceback" not in text


def test_group_signal_in_the_training_leaves_a_checkpoint(small_profile, tmp_path):
    run, log = start(small_profile, tmp_path, "train.max_steps=3000", "train.checkpoint_every=1000")
    wait_for("train: ", run, log)
    wait_for("tok/s", run, log)
    assert stop(run, signal.SIGTERM) == 2
    text = log.read_text()
    assert "Traceback" not in text
    problem, _ = text.splitlines()[-2:]
    assert problem.startswith("error: training was stopped at step")
    work = tmp_path / "home/artifacts/.work"
    assert any(path.name.startswith("step-") for path in work.rglob("*")), list(work.rglob("*"))
