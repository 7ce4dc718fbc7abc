"""What ends `finetune serve`; tests of servers see it end everything."""

import os
import signal
import sys
import time

import psutil
import pytest

from flows.orchestration import child_processes, serve
from tasks.core.errors import PipelineError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_a_stop_and_a_closed_terminal_end_it_once(number):
    before = signal.getsignal(number)
    with pytest.raises(serve._StopError), serve._stoppable():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), number)  # while it ends everything: passed over
            time.sleep(0.1)
    assert signal.getsignal(number) is before


def test_a_terminal_that_is_gone_keeps_nothing_from_ending(monkeypatch):
    def gone(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.print", gone)
    child_processes.say("stopping")


@pytest.fixture
def sleeping(monkeypatch, tmp_path):
    """Child processes that run `sleep` instead of Prefect."""
    program = tmp_path / "prefect"
    program.write_text("#!/bin/sh\nexec sleep 100\n")
    program.chmod(0o755)
    monkeypatch.setattr(child_processes, "prefect_command", lambda: str(program))
    parts = child_processes.ChildProcesses(os.environ)
    yield parts
    parts.end()


class EnoughError(Exception):
    pass


def test_a_server_that_is_killed_is_started_again(sleeping, monkeypatch, capsys):
    ready = []

    def once_more(process):
        ready.append(process)
        if len(ready) == 2:
            raise EnoughError

    monkeypatch.setattr(child_processes, "RESTART_S", 0.0)
    sleeping.start("server", "x", ready=once_more)
    ready[0].kill()
    with pytest.raises(EnoughError):
        sleeping.wait(lambda: None)
    assert ready[1].poll() is None
    assert "the server ended unexpectedly with code -9; starting it again" in (
        capsys.readouterr().out
    )


def test_a_server_that_ends_again_at_once_ends_serve_with_the_cause(sleeping):
    started = []
    sleeping.start("server", "x", ready=started.append)
    started[0].kill()
    with pytest.raises(PipelineError, match="the server ended unexpectedly with code -9"):
        sleeping.wait(lambda: None)


def test_runs_without_a_process_are_looked_for_again_and_again(sleeping, monkeypatch):
    looks = []

    def look():
        looks.append(1)
        if len(looks) == 2:
            raise EnoughError
        raise ConnectionError("no server for a moment")

    monkeypatch.setattr(child_processes, "CHECK_S", 0.0)
    sleeping.start("worker", "x")
    with pytest.raises(EnoughError):
        sleeping.wait(look)


def test_a_flow_that_outlived_its_worker_is_ended_with_it(monkeypatch, tmp_path):
    program = tmp_path / "prefect"  # starts a flow, and is killed
    flow = "import sys, time; print(flush=True); time.sleep(100)"
    engine = f"setsid {sys.executable} -c '{flow}' prefect.engine"  # as Prefect starts it
    program.write_text(f"#!/bin/sh\n{engine} > {tmp_path}/started &\nwait\n")
    program.chmod(0o755)
    monkeypatch.setattr(child_processes, "prefect_command", lambda: str(program))
    workers = []
    parts = child_processes.ChildProcesses(os.environ)
    parts.start("worker", "x", ready=workers.append)
    while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
        time.sleep(0.05)
    (below,) = psutil.Process(workers[0].pid).children()
    workers[0].kill()
    workers[0].wait()
    assert below.is_running()
    parts.end()
    assert not below.is_running() or below.status() == psutil.STATUS_ZOMBIE
