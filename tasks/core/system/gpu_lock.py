"""A stage's turn on the machine: outside of quiet hours, alone on the GPU, with memory free, and
not for ever.

One `flock` for each user and machine keeps two stages off the GPU, whoever started them; the kernel
frees it however a process dies. Whatever is waited for is told once, and has a limit.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.settings.hardware import HardwareSettings
from tasks.core.system.file_lock import try_lock
from tasks.core.system.quiet_hours import quiet_now

POLL_S = 2.0
# not the TMPDIR of whoever runs: a service and a terminal may have different ones
LOCK_FOLDER = Path("/tmp")


@contextmanager
def gpu_turn(hardware: HardwareSettings) -> Iterator[None]:
    """Wait for the end of quiet hours, for the GPU and for free memory on it; hold it inside.

    On the CPU only the quiet hours count.

    Raises:
        PipelineError: It took longer than `hardware.wait_minutes`.
    """
    await_quiet_end(hardware.quiet_hours)
    if hardware.device == "cpu":
        yield
        return
    with (LOCK_FOLDER / f"finetune-gpu-{os.getuid()}.lock").open("a") as file:
        _wait(
            lambda: "" if try_lock(file) else "another run holds the GPU; waiting for it",
            hardware.wait_minutes,
        )
        if hardware.vram_gib is not None:
            wanted = hardware.vram_gib
            _wait(lambda: _occupied(wanted), hardware.wait_minutes)
        yield


def await_quiet_end(hours: str | None) -> None:
    """Sleep until the quiet hours are over, if it is in them now."""
    if (end := quiet_now(hours)) is None:
        return
    say(f"quiet hours ({hours}): going on at {end:%H:%M}")
    while quiet_now(hours):
        time.sleep(POLL_S)


def _wait(blocked: Callable[[], str], minutes: float) -> None:
    """Until `blocked` has nothing to say any more; its words are told once.

    Raises:
        PipelineError: It went on for longer than `minutes`.
    """
    end = time.monotonic() + 60 * minutes
    told = False
    while why := blocked():
        if not told:
            say(why)
            told = True
        if time.monotonic() >= end:
            raise PipelineError(
                f"{why}: given up after {minutes:g} minutes",
                "Look who uses it with `nvidia-smi`, or raise hardware.wait_minutes.",
            )
        time.sleep(POLL_S)


def _occupied(wanted_gib: float) -> str:
    """What is missing on the GPU, with both numbers; "" if nothing.

    Not looked at once this process is on the GPU itself: what it holds would count as taken.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return ""
    memory = gpu_memory()
    if memory is None or memory[0] >= wanted_gib or memory[1] < wanted_gib:
        return ""
    return (
        f"the GPU has {memory[0]:.1f} GiB free, hardware.vram_gib is {wanted_gib:g}; waiting for "
        "other programs"
    )


def gpu_memory() -> tuple[float, float] | None:
    """Free and total GiB of the first GPU that this process may use; None where nobody can tell."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"
    query = ["--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits", "-i", first]
    try:
        told = subprocess.run(
            [tool, *query], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        free, total = (float(part) / 1024 for part in told.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return free, total


@contextmanager
def time_limit(stage: str, minutes: float | None) -> Iterator[None]:
    """End what runs inside after so many minutes; None: never.

    The training catches the signal and writes a checkpoint first. Signals reach the main thread
    alone; in another one there is no limit.

    Raises:
        PipelineError: Time is up.
    """
    if minutes is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise PipelineError(
            f"stage {stage} took longer than hardware.stage_minutes, {minutes:g}",
            "Raise it, or give the stage less to do; finished stages are kept.",
        )

    before = signal.signal(signal.SIGALRM, end)
    others = signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *others)
        signal.signal(signal.SIGALRM, before)
