"""GPU lock, quiet hours, free-memory wait and time limit of a stage.

Two stages on one GPU run out of its memory, so a file lock per GPU lets only one stage use it at a
time, however they were started. Each wait is logged once and has a limit.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

from tasks.core.errors import PipelineError, StopError, TimeLimitError
from tasks.core.progress import say
from tasks.core.settings.hardware import HardwareSettings
from tasks.core.system.file_lock import try_lock
from tasks.core.system.quiet_hours import quiet_now

POLL_S = 2.0
# not TMPDIR: a service and a terminal may have different ones, and would not see each other's lock
LOCK_FOLDER = Path("/tmp")


@contextmanager
def gpu_turn(hardware: HardwareSettings) -> Iterator[None]:
    """Wait for the end of quiet hours, for the GPU lock and for free GPU memory; hold the lock.

    On the CPU only the quiet hours apply.

    Raises:
        PipelineError: The wait was longer than `hardware.wait_minutes`.
    """
    await_quiet_end(hardware.quiet_hours)
    if hardware.device == "cpu":
        yield
        return
    with ExitStack() as held:
        for gpu in visible_gpus()[: hardware.gpus]:  # in one order, so that no two runs deadlock
            file = held.enter_context(_lock_file(gpu))
            _wait(partial(_holder_of, file), hardware.wait_minutes)
        if hardware.vram_gib is not None:
            wanted = hardware.vram_gib
            _wait(lambda: _lacking(wanted), hardware.wait_minutes)
        yield


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, in CUDA's order: UUIDs, or indexes if unknown."""
    indexes = [i for i in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if i.strip()]
    query = ["--query-gpu=uuid", "--format=csv,noheader"]
    lines = _nvidia_smi([*query, *(["-i", ",".join(indexes)] if indexes else [])])
    return [line.strip() for line in lines] or indexes or ["0"]


def _lock_file(gpu: str) -> IO[str]:
    """The lock file of a GPU, shared by all users of the machine.

    A file of another user is opened without the intention to create it: Linux refuses that in
    world-writable folders. `flock` needs no write access.
    """
    path = LOCK_FOLDER / f"finetune-{gpu.replace('/', '-')}.lock"
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    return path.open()


def _holder_of(file: IO[str]) -> str:
    return "" if try_lock(file) else "another run holds the GPU; waiting for it"


def await_quiet_end(hours: str | None) -> None:
    """Sleep until the quiet hours end, if it is quiet hours now."""
    if (end := quiet_now(hours)) is None:
        return
    say(f"quiet hours ({hours}): continuing at {end:%H:%M}")
    while quiet_now(hours):
        time.sleep(POLL_S)


def _wait(blocked: Callable[[], str], minutes: float) -> None:
    """Wait until `blocked` returns no reason any more; log the first reason.

    Raises:
        PipelineError: The wait was longer than `minutes`.
    """
    end = time.monotonic() + 60 * minutes
    is_logged = False
    while reason := blocked():
        if not is_logged:
            say(reason)
            is_logged = True
        if time.monotonic() >= end:
            raise PipelineError(
                f"{reason}: gave up after {minutes:g} minutes",
                "Find the program that uses it with `nvidia-smi`, or raise hardware.wait_minutes.",
            )
        time.sleep(POLL_S)


def _lacking(wanted_gib: float) -> str:
    """Why there is too little free GPU memory; "" if there is enough.

    Not checked once this process uses the GPU itself, because its own memory would count as taken;
    nor on a GPU that is smaller than the setting, as waiting would not help.
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
    """Free and total GiB of the first GPU that this process may use; None if unknown."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"
    query = ["--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits", "-i", first]
    try:
        free, total = (float(part) / 1024 for part in _nvidia_smi(query)[0].split(","))
    except (ValueError, IndexError):
        return None
    return free, total


def _nvidia_smi(query: list[str]) -> list[str]:
    """Lines that `nvidia-smi` prints; none if it is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(
            [tool, *query], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


class _TimeIsUp(BaseException):
    """Not an `Exception`: no library that the stage calls may catch it and go on."""


@contextmanager
def time_limit(stage: str, minutes: float | None, scratch: Path) -> Iterator[None]:
    """Interrupt the block after some minutes; None: no limit.

    The training handles the signal itself and writes a checkpoint first. Signals arrive in the main
    thread only, so there is no limit in other threads.

    Args:
        stage: Its name.
        minutes: The limit.
        scratch: Folder with what the stage keeps for its next run.

    Raises:
        TimeLimitError: The time is up; says whether there is something to resume from.
    """
    if minutes is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, end)
    others = signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    end_s = time.monotonic() + 60 * minutes
    problem = f"stage {stage} took longer than hardware.stage_minutes, {minutes:g}"
    try:
        yield
    except _TimeIsUp:
        remedy = "Raise it, or reduce the work of the stage; nothing of it was kept."
        if scratch.is_dir() and any(scratch.iterdir()):
            remedy = "Raise it, or run again: the stage goes on with what it had kept."
        raise TimeLimitError(problem, remedy) from None
    except StopError as stop:
        if time.monotonic() < end_s:  # stopped for another reason
            raise
        raise TimeLimitError(f"{problem}: {stop.problem}", f"Raise it, or: {stop.remedy}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *others)
        signal.signal(signal.SIGALRM, before)
