"""A stop, of the process or of its whole group, ends a run in two lines and within seconds."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import write_small_profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LIMIT_S = 90  # a few seconds on a quiet machine


def start(profile, tmp_path, *changes, options=()):
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", str(profile), *options]
    command += [word for change in changes for word in ("--set", change)]
    log = (tmp_path / "log.txt").open("w")
    run = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    return run, tmp_path / "log.txt"


def wait_for(text, run, log, limit_s=600):
    end = time.monotonic() + limit_s
    while text not in log.read_text():
        assert run.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def stop(run, number, to_group=True):
    """Signal the group or the process; returns the exit code, once all descendants of the run are
    gone."""
    family = psutil.Process(run.pid).children(recursive=True)
    (os.killpg if to_group else os.kill)(run.pid, number)
    code = run.wait(LIMIT_S)
    _, alive = psutil.wait_procs(family, timeout=LIMIT_S)
    assert alive == []
    return code


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """A home in which every run goes on where the one before was stopped."""
    folder = tmp_path_factory.mktemp("stopped")
    write_small_profile(folder / "small.yaml", tiny_model)
    return folder


# at the start of every stage; each signal to the group and to the process alone
STOPS = [
    ("base", signal.SIGTERM, True),
    ("ingest", signal.SIGHUP, False),
    ("filter", signal.SIGINT, True),
    ("prompt", signal.SIGTERM, False),
    ("tokenize", signal.SIGHUP, True),
    ("train", signal.SIGINT, False),
    ("evaluate", signal.SIGTERM, True),
    ("merge", signal.SIGHUP, True),
]

OFTEN = ("ingest", "train", "merge")  # the others run in `make test-servers`: ten seconds each


@pytest.mark.parametrize(
    ("stage", "number", "to_group"),
    [
        stop if stop[0] in OFTEN else pytest.param(*stop, marks=pytest.mark.servers)
        for stop in STOPS
    ],
)
def test_signal_at_the_start_of_a_stage_ends_the_run_in_two_lines(
    folder, tmp_path, monkeypatch, stage, number, to_group
):
    monkeypatch.setenv("FINETUNE_HOME", str(folder / "home"))
    force = ["--force", stage]  # whatever earlier runs have finished
    run, log = start(folder / "small.yaml", tmp_path, options=force)
    wait_for(f"{stage}: runs", run, log)
    code = stop(run, number, to_group)
    text = log.read_text()
    assert "Traceback" not in text
    if code == 2:  # the stage was quick, and the training has begun
        assert "training was stopped at step" in text.splitlines()[-2]
    else:
        assert code == 128 + number
        assert text.endswith("stopped; finished stages are kept, run again to continue\n")


def test_group_signal_in_the_training_leaves_a_checkpoint(small_profile, tmp_path):
    run, log = start(small_profile, tmp_path, "train.max_steps=3000", "train.checkpoint_every=1000")
    wait_for("train: ", run, log)
    wait_for("tokens/s", run, log)
    assert stop(run, signal.SIGTERM) == 2
    text = log.read_text()
    assert "Traceback" not in text
    problem, _ = text.splitlines()[-2:]
    assert problem.startswith("error: training was stopped at step")
    work = tmp_path / "home/artifacts/.work"
    assert any(path.name.startswith("step-") for path in work.rglob("*")), list(work.rglob("*"))
