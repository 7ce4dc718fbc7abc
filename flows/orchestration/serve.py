"""`finetune serve`: Prefect server, work pool with one slot, deployments and worker together.

Runs in the foreground until Ctrl-C, SIGTERM or the end of its terminal. It then ends the processes
that it started, by their ids: the running flow first, which writes a checkpoint and reports its
state to the server, then the worker and the server. A server that already answers on the port is
used and not stopped.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil  # type: ignore[import-untyped]  # ships no types

from tasks.core.errors import PipelineError
from tasks.core.system.home import IS_CHECKOUT, REPOSITORY
from tasks.core.system.interrupts import handled

POOL = "local-gpu"
# the folder of prefect.yaml; the wheel has it in this package's parent
DEPLOYMENTS = REPOSITORY if IS_CHECKOUT else Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
START_S = 180.0  # the first start creates the database
CHECKPOINT_S = 90.0  # time for a running flow to write a checkpoint
END_S = 15.0
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed
# environment of the child processes
SETTINGS = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


class _StopError(Exception):
    """Ctrl-C, SIGTERM or SIGHUP was received."""


def serve(port: int) -> int:
    """Start all processes, wait for a signal, end all processes.

    Raises:
        PipelineError: A process does not start, or ends unexpectedly.
    """
    url = f"http://{HOST}:{port}/api"
    env = dict(os.environ) | SETTINGS | {"PREFECT_API_URL": url}
    parts = Parts(env)
    with _stoppable():
        try:
            if answers(url):
                say(f"server    uses the one that runs at {url}")
            else:
                command = ("server", "start", "--host", HOST, "--port", str(port))
                started = parts.start("server", *command)
                _wait_for(url, started)
            set_up(env, POOL)
            say(f"pool      {POOL}, one run at a time\nflows     finetune/local-gpu, nightly")
            parts.start("worker", "worker", "start", "--pool", POOL)
            say(f"pages     http://{HOST}:{port}\n")
            say(f"In another terminal:\n  export PREFECT_API_URL={url}")
            say("  prefect deployment run finetune/local-gpu --watch\nCtrl-C stops everything.")
            parts.wait()
        except _StopError:
            say("stopping; a running flow writes a checkpoint first")
        finally:
            parts.end()
    return 0


def set_up(env: Mapping[str, str], pool: str) -> None:
    """Create the work pool if it is missing, set its limit, and create the deployments.

    Raises:
        PipelineError: One of these steps fails.
    """
    if _run(env, "work-pool", "inspect", pool).returncode:
        _call(env, "work-pool", "create", pool, "--type", "process")
    set_limit(env, pool)
    _call(env, "--no-prompt", "deploy", "--all")


def set_limit(env: Mapping[str, str], pool: str) -> None:
    """Limit a work pool to one run at a time.

    Raises:
        PipelineError: The limit cannot be set.
    """
    _call(env, "work-pool", "set-concurrency-limit", pool, "1")


class Parts:
    """The child processes, each in its own session, so that Ctrl-C does not reach them directly."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start `prefect COMMAND...` with the output of this process."""
        running = subprocess.Popen(
            # otherwise Prefect asks for a profile in a terminal, and waits
            [prefect_command(), "--no-prompt", *command],
            env=self._env,
            cwd=DEPLOYMENTS,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._running[name] = running
        say(f"{name:<10}process {running.pid}")
        return running

    def wait(self) -> None:
        """Wait until a signal arrives.

        Raises:
            PipelineError: One of the processes ended.
        """
        while True:
            for name, running in self._running.items():
                if (code := running.poll()) is not None:
                    raise PipelineError(
                        f"the {name} ended unexpectedly with code {code}",
                        "Its last lines above give the reason; solve it and start again.",
                    )
            time.sleep(0.5)

    def end(self) -> None:
        """End the flow, the worker and the server, in this order."""
        if worker := self._running.pop("worker", None):
            end_flows(worker.pid)
            _end(worker)
        for running in self._running.values():
            _end(running)
        self._running.clear()


def end_flows(worker: int) -> None:
    """Stop the flow runs of a worker, and wait until they have ended.

    Args:
        worker: Process id.
    """
    try:
        below = psutil.Process(worker).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    flows = [p for p in below if _is_flow(p)]
    for process in flows:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    if flows:
        say(f"waiting for {len(flows)} running flow to stop (at most {CHECKPOINT_S:.0f} s)")
        psutil.wait_procs(flows, timeout=CHECKPOINT_S)


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


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn the first signal of `STOPS` into `_StopError`; later ones are ignored."""
    seen = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if not seen:
            seen = True
            raise _StopError

    with handled(STOPS, stop):
        yield


def answers(url: str) -> bool:
    """Whether a Prefect server is healthy at an API address."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # a server that requires a password
    except OSError:
        return False


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while not answers(url):
        if server.poll() is not None or time.monotonic() > deadline:
            raise PipelineError(
                f"no Prefect server came up at {url} within {START_S:.0f} s",
                "See its lines above. If another program uses the port, choose one: --port 4201.",
            )
        time.sleep(0.3)


def _call(env: Mapping[str, str], *command: str) -> None:
    """Run one prefect command to its end.

    Raises:
        PipelineError: It failed.
    """
    done = _run(env, *command)
    if done.returncode:
        last = " ".join((done.stdout + done.stderr).split())[-300:]
        raise PipelineError(
            f"prefect {' '.join(command)} failed: {last}",
            "Run `finetune doctor` to find the cause.",
        )


def _run(env: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [prefect_command(), *command],
        env=env,
        cwd=DEPLOYMENTS,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def prefect_command() -> str:
    """The `prefect` next to this interpreter, else the one on the path."""
    beside = Path(sys.executable).with_name("prefect")
    return str(beside) if beside.exists() else shutil.which("prefect") or "prefect"


def say(text: str) -> None:
    """Print a line; a closed terminal is no error."""
    with contextlib.suppress(OSError):
        print(text, flush=True)
