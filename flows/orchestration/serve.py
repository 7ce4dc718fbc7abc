"""`finetune serve`: Prefect server, work pool with one slot, deployments and worker together.

Runs in the foreground until Ctrl-C, SIGTERM or the end of its terminal. It then ends the processes
that it started, by their ids: the running flow first, which writes a checkpoint and reports its
state to the server, then the worker and the server. A server that already answers on the port is
used and not stopped.

A server or worker that ends by itself is started again. Runs whose process is gone, as after a
power cut, are marked as crashed: otherwise they would occupy the slot of the pool forever.
"""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType

from flows.orchestration.child_processes import ChildProcesses, prefect_command, say
from tasks.core.errors import PipelineError
from tasks.core.system.home import DEPLOYMENTS
from tasks.core.system.interrupts import STOP_SIGNALS, handled

POOL = "local-gpu"
HOST = "127.0.0.1"
START_S = 180.0  # the first start creates the database
# environment of the child processes
SETTINGS = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


class _StopError(Exception):
    """Ctrl-C, SIGTERM or SIGHUP was received."""


def serve(port: int, close_dead_runs: Callable[[str], None]) -> int:
    """Start all processes, wait for a signal, end all processes.

    Args:
        port: Of the server.
        close_dead_runs: Gives runs their final state whose process is gone; takes the API address.

    Raises:
        PipelineError: A process does not start, or ends again soon after it was started.
    """
    url = f"http://{HOST}:{port}/api"
    env = dict(os.environ) | SETTINGS | {"PREFECT_API_URL": url}
    parts = ChildProcesses(env)
    with _stoppable():
        try:
            if answers(url):
                say(f"server    already running at {url}")
            else:
                command = ("server", "start", "--host", HOST, "--port", str(port))
                parts.start("server", *command, ready=partial(_wait_for, url))
            set_up(env, POOL)
            close_dead_runs(url)
            say(f"pool      {POOL}, one run at a time\nflows     finetune/local-gpu, nightly")
            parts.start("worker", "worker", "start", "--pool", POOL)
            say(f"pages     http://{HOST}:{port}\n")
            say(f"In another terminal:\n  export PREFECT_API_URL={url}")
            say("  prefect deployment run finetune/local-gpu --watch\nCtrl-C stops everything.")
            parts.wait(partial(close_dead_runs, url))
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


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn the first stop signal into `_StopError`; later ones are ignored."""
    seen = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if not seen:
            seen = True
            raise _StopError

    with handled(STOP_SIGNALS, stop):
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
                f"the Prefect server at {url} did not start within {START_S:.0f} s",
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
