"""Child processes of `finetune serve`: restarted when they exit, and stopped in order.

Each has a session of its own, so that Ctrl-C does not reach it directly. Prefect does the same for
the flows of a worker. They are found by an environment variable that they inherit, even after their
worker is gone.
"""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types

from tasks.core.errors import PipelineError
from tasks.core.system.home import DEPLOYMENTS

MARK = "FINETUNE_SERVE_PROCESS"  # variable with the id of the process that started it
CHECKPOINT_S = 90.0  # time for a running flow to write a checkpoint
END_S = 15.0
RESTART_S = 15.0  # a process that worked for less than this would end again
CHECK_S = 60.0  # between two checks for runs whose process is gone


@dataclass(frozen=True)
class ChildProcess:
    """A child process.

    Attributes:
        process: As it runs now.
        command: Of `prefect`.
        ready: Waits until it works.
        works_since: Seconds of the monotonic clock.
    """

    process: subprocess.Popen[bytes]
    command: tuple[str, ...]
    ready: Callable[[subprocess.Popen[bytes]], None]
    works_since: float = math.inf


class ChildProcesses:
    """The child processes, each in its own session, so that Ctrl-C does not reach them directly."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = {**env, MARK: str(os.getpid())}
        self._running: dict[str, ChildProcess] = {}

    def start(
        self,
        name: str,
        *command: str,
        ready: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
    ) -> None:
        """Start `prefect COMMAND...` with the output of this process, and wait until it works."""
        running = subprocess.Popen(
            # otherwise Prefect asks for a profile in a terminal, and waits
            [prefect_command(), "--no-prompt", *command],
            env=self._env,
            cwd=DEPLOYMENTS,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._running[name] = ChildProcess(running, command, ready)
        say(f"{name:<10}process {running.pid}")
        ready(running)
        self._running[name] = ChildProcess(running, command, ready, time.monotonic())

    def wait(self, check: Callable[[], None]) -> None:
        """Wait until a signal arrives; start a process again that ends.

        Args:
            check: Called about every `CHECK_S`; may fail with an `OSError` while there is no
                server.

        Raises:
            PipelineError: A process ended again within `RESTART_S`.
        """
        checked = time.monotonic()
        while True:
            for name, part in list(self._running.items()):
                if part.process.poll() is not None:
                    self._start_again(name, part)
            if time.monotonic() - checked > CHECK_S:
                with contextlib.suppress(OSError):
                    check()
                checked = time.monotonic()
            time.sleep(0.5)

    def _start_again(self, name: str, part: ChildProcess) -> None:
        code = part.process.returncode
        if time.monotonic() - part.works_since < RESTART_S:
            raise PipelineError(
                f"the {name} ended unexpectedly with code {code}",
                "Its last lines above give the reason; fix it and start again.",
            )
        say(f"the {name} ended unexpectedly with code {code}; starting it again")
        self.start(name, *part.command, ready=part.ready)

    def end(self) -> None:
        """End the flow, the worker and the server, in this order."""
        if worker := self._running.pop("worker", None):
            end_flows()
            _end(worker.process)
        for part in self._running.values():
            _end(part.process)
        self._running.clear()


def end_flows() -> None:
    """Stop the flow runs of the workers of this process, and wait until they have ended."""
    flows = [p for p in psutil.process_iter() if _is_ours(p) and _is_flow(p)]
    for process in flows:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    if flows:
        say(f"waiting for {len(flows)} running flow to stop (at most {CHECKPOINT_S:.0f} s)")
        psutil.wait_procs(flows, timeout=CHECKPOINT_S)


def _is_ours(process: psutil.Process) -> bool:
    try:
        return bool(process.environ().get(MARK) == str(os.getpid()))
    except (psutil.Error, OSError):
        return False  # of another user, or gone


def _is_flow(process: psutil.Process) -> bool:
    """Whether a process is Prefect's engine, which runs a flow."""
    try:
        return any("prefect" in a and "engine" in a for a in process.cmdline()[1:4])
    except psutil.Error:
        return False


def _end(running: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, and after `END_S` SIGKILL, to a process; then kill its descendants."""
    if running.poll() is not None:
        return
    try:
        family = psutil.Process(running.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    running.terminate()
    try:
        running.wait(END_S)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
    for process in psutil.wait_procs(family, timeout=3)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def prefect_command() -> str:
    """The `prefect` next to this interpreter, else the one on the path."""
    beside = Path(sys.executable).with_name("prefect")
    return str(beside) if beside.exists() else shutil.which("prefect") or "prefect"


def say(text: str) -> None:
    """Print a line; a closed terminal is no error."""
    with contextlib.suppress(OSError):
        print(text, flush=True)
