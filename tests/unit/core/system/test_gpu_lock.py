"""Waiting for quiet hours, the GPU and its memory; the time limit of a stage."""

import fcntl
import os
import signal
import time
from datetime import datetime

import pytest

from tasks.core.errors import PipelineError, TimeLimitError
from tasks.core.progress import sink
from tasks.core.settings.hardware import HardwareSettings
from tasks.core.system import gpu_lock, quiet_hours
from tasks.core.system.quiet_hours import quiet_end
from tests.unit.core.conftest import Messages


@pytest.fixture
def said(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_lock, "POLL_S", 0.01)
    monkeypatch.setattr(gpu_lock, "LOCK_FOLDER", tmp_path)
    messages = Messages()
    with sink(messages):
        yield messages


def at(text):
    return datetime.fromisoformat(f"2026-03-05 {text}")


@pytest.mark.parametrize(
    ("spec", "now", "end"),
    [
        ("08:00-18:00", "07:59", None),
        ("08:00-18:00", "08:00", "2026-03-05 18:00"),
        ("08:00-18:00", "18:00", None),
        ("22:00-06:00", "23:30", "2026-03-06 06:00"),
        ("22:00-06:00", "05:59", "2026-03-05 06:00"),
        ("22:00-06:00", "12:00", None),
        (None, "12:00", None),
    ],
)
def test_quiet_hours_end_when_they_say_also_over_midnight(spec, now, end):
    assert quiet_end(spec, at(now)) == (datetime.fromisoformat(end) if end else None)


def test_quiet_hours_are_waited_for_and_logged(said, monkeypatch):
    ends = iter([at("18:00"), at("18:00"), at("18:00"), None])
    monkeypatch.setattr(gpu_lock, "quiet_now", lambda spec: next(ends))
    with gpu_lock.gpu_turn(HardwareSettings(device="cpu", quiet_hours="08:00-18:00")):
        pass
    assert said.lines == ["quiet hours (08:00-18:00): continuing at 18:00"]
    assert next(ends, "all asked") == "all asked"


def lock_file(gpu="0"):
    return gpu_lock.LOCK_FOLDER / f"finetune-{gpu}.lock"


def test_waiting_for_a_locked_gpu_ends_at_the_limit(said):
    hardware = HardwareSettings(device="auto", wait_minutes=0.002)
    with lock_file().open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(PipelineError, match=r"gave up after 0\.002 minutes"):
            gpu_lock.gpu_turn(hardware).__enter__()
    assert said.lines == ["another run holds the GPU; waiting for it"]


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """An nvidia-smi that tells what a file says."""
    numbers = tmp_path / "numbers"
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat {numbers}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return numbers


def test_memory_that_other_programs_hold_is_waited_for_with_both_numbers(said, smi):
    smi.write_text("3072, 10240\n")
    turn = gpu_lock.gpu_turn(HardwareSettings(vram_gib=9, wait_minutes=0.002))
    with pytest.raises(PipelineError, match=r"3\.0 GiB free, hardware\.vram_gib is 9"):
        turn.__enter__()
    smi.write_text("9728, 10240\n")
    with gpu_lock.gpu_turn(HardwareSettings(vram_gib=9, wait_minutes=0)):
        pass


def test_a_gpu_that_is_too_small_anyway_is_not_waited_for(said, smi):
    smi.write_text("3072, 8192\n")
    with gpu_lock.gpu_turn(HardwareSettings(vram_gib=9, wait_minutes=0)):
        pass


def test_a_stage_ends_when_its_time_is_up_and_the_alarm_with_it(tmp_path):
    with (
        pytest.raises(
            PipelineError, match=r"stage filter took longer than .*stage_minutes, 0\.001"
        ),
        gpu_lock.time_limit("filter", 0.001, tmp_path),
    ):
        time.sleep(5)
    before = signal.getsignal(signal.SIGALRM)
    with gpu_lock.time_limit("filter", 1, tmp_path):
        pass
    assert signal.getsignal(signal.SIGALRM) is before


def test_what_is_not_hours_is_refused():
    with pytest.raises(ValueError, match="quiet_hours"):
        HardwareSettings(quiet_hours="8-18")
    assert quiet_hours.quiet_now(None) is None


def test_runs_on_different_gpus_do_not_wait_for_each_other(said, monkeypatch):
    settings = HardwareSettings(device="cuda", wait_minutes=0)
    monkeypatch.setattr(gpu_lock, "visible_gpus", lambda: ["GPU-a"])
    with gpu_lock.gpu_turn(settings):
        busy = pytest.raises(PipelineError, match="another run holds the GPU")
        with busy, gpu_lock.gpu_turn(settings):
            pass
        monkeypatch.setattr(gpu_lock, "visible_gpus", lambda: ["GPU-b"])
        with gpu_lock.gpu_turn(settings):
            pass


def test_lock_file_of_another_user_is_enough(said, monkeypatch):
    monkeypatch.setattr(gpu_lock, "visible_gpus", lambda: ["GPU-a"])
    lock_file("GPU-a").touch(mode=0o444)
    with gpu_lock.gpu_turn(HardwareSettings(device="cuda")):
        pass


def test_time_limit_ends_code_that_catches_every_exception(tmp_path):
    def stubborn():
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    limit = gpu_lock.time_limit("filter", 0.1 / 60, tmp_path)
    with pytest.raises(TimeLimitError, match=r"took longer than hardware\.stage_minutes"), limit:
        stubborn()


@pytest.mark.parametrize(
    ("kept", "told"), [([], "nothing of it was kept"), (["step-5"], "goes on with what it had")]
)
def test_time_limit_says_whether_there_is_something_to_resume_from(tmp_path, kept, told):
    for name in kept:
        (tmp_path / name).mkdir()
    limit = gpu_lock.time_limit("train", 0.02 / 60, tmp_path)
    with pytest.raises(TimeLimitError, match=told), limit:
        time.sleep(5)
