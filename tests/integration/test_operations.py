"""`make serve` with a real server and worker: starting, cancelling, stopping, going on."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.orchestration.child_processes import RESTART_S
from tests.conftest import write_small_profile
from tests.integration import servers

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1200)]


class Served:
    """A `finetune serve` in a home of its own, and runs started through it."""

    def __init__(self, folder, profile):
        self.port = servers.free_port()
        self.env = servers.fresh_environment(folder, self.port)
        self.profile = profile
        self.log = folder / "serve.log"
        self.artifacts = folder / "home" / "artifacts"

    def start(self, *command):
        self.log.unlink(missing_ok=True)
        return servers.process(command, self.env, self.log)

    def ready(self, process):
        text = "Ctrl-C stops everything"
        servers.wait_until(lambda: text in self.log.read_text(), self.log, process)

    def submit(self):
        """Start a training that takes a minute; its id."""
        deployment = servers.api(self.env, "/deployments/name/finetune/local-gpu")["id"]
        changes = ["train.max_steps=2000", "evaluate.probe_problems=0", "hardware.device=auto"]
        parameters = {
            "profile": str(self.profile),
            "overrides": changes,
            "only": servers.STAGES[:6],
        }
        path = f"/deployments/{deployment}/create_flow_run"
        return servers.api(self.env, path, {"parameters": parameters})["id"]

    def logged(self):
        """Bytes of the log of a training's steps."""
        logs = self.artifacts.glob(".work/train-*/scratch/metrics.jsonl")
        return sum(log.stat().st_size for log in logs)

    def wait_for_training(self):
        """Until a step was logged."""
        before = self.logged()
        servers.wait_until(lambda: self.logged() > before, self.log)

    def checkpoints(self):
        return {p.name for p in self.artifacts.glob(".work/train-*/scratch/checkpoints/step-*")}

    def state(self, run):
        return servers.api(self.env, f"/flow_runs/{run}")["state"]

    def wait_for_state(self, run, kinds):
        servers.wait_until(lambda: self.state(run)["type"] in kinds, self.log)
        return self.state(run)


@pytest.fixture(scope="module")
def served(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("operations")
    return Served(folder, write_small_profile(folder / "small.yaml", tiny_model))


def listening(process):
    """Addresses that a process and those below it listen on."""
    family = [process, *process.children(recursive=True)]
    return {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == "LISTEN"}


def test_make_serve_runs_cancels_stops_and_goes_on_where_it_stopped(served):
    # what make would install is there already
    make = ["make", "serve", f"PORT={served.port}", f"BIN={Path(sys.executable).parent}"]
    with served.start(*make, "-o", "setup", "-o", "sandbox") as process:
        served.ready(process)
        (pool,) = servers.api(served.env, "/work_pools/filter", {})
        assert (pool["name"], pool["concurrency_limit"]) == ("local-gpu", 1)
        assert listening(psutil.Process(process.pid)) == {"127.0.0.1"}

        # cancelled: at a checkpoint, and Cancelled is what the server says
        run = served.submit()
        served.wait_for_training()
        servers.call(served.env, "prefect", "flow-run", "cancel", run)
        ended = served.wait_for_state(run, ["CANCELLED", "FAILED", "CRASHED"])
        assert ended["type"] == "CANCELLED", ended
        cancelled_at = served.checkpoints()
        assert cancelled_at

        # Ctrl-C: the next run goes on from there, writes a checkpoint, tells its state
        run = served.submit()
        servers.wait_until(
            lambda: any("resuming from step" in x for x in servers.log_lines(served.env, run)),
            served.log,
        )
        served.wait_for_training()
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3  # server, worker, flow
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to make and what it runs
        process.wait(servers.PATIENCE_S)
        said = served.log.read_text()
        assert "stopping; a running flow writes a checkpoint first" in said
        assert "flows/orchestration/serve.py" not in said  # no traceback of ours
    assert served.checkpoints() != cancelled_at
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert not servers.healthy(served.port)

    # the same server data again: the run ended with a state that says where it stopped
    with served.start("finetune", "serve", "--port", str(served.port)) as process:
        served.ready(process)
        state = served.state(run)
        assert state["type"] == "FAILED"
        assert "training was stopped at step" in state["message"]
        assert "resumes from this step" in state["message"]
        process.terminate()
        assert process.wait(servers.PATIENCE_S) == 0


def part(served, name):
    """Process id of the server or worker that serve started last."""
    lines = [x.split() for x in served.log.read_text().splitlines()]
    return [int(x[2]) for x in lines if x[:2] == [name, "process"]][-1]


def test_server_and_worker_killed_in_a_run_come_back_and_nothing_stays_running(served):
    with served.start("finetune", "serve", "--port", str(served.port)) as process:
        served.ready(process)
        run = served.submit()
        servers.wait_until(
            lambda: any("train: " in x for x in servers.log_lines(served.env, run)), served.log
        )
        time.sleep(RESTART_S)
        for name in ("server", "worker"):
            psutil.Process(killed := part(served, name)).kill()
            servers.wait_until(lambda n=name, k=killed: part(served, n) != k, served.log, process)
            servers.wait_until(lambda: servers.healthy(served.port), served.log, process)
        time.sleep(3)
        os.kill(process.pid, signal.SIGTERM)  # a flow without its worker ends, too
        assert process.wait(servers.PATIENCE_S) == 0, served.log.read_text()
    with served.start("finetune", "serve", "--port", str(served.port)) as process:
        served.ready(process)
        assert served.state(run)["type"] in ("FAILED", "CRASHED", "COMPLETED"), served.state(run)


def test_serve_on_a_port_that_another_program_holds_ends_with_two_lines(tmp_path, served):
    with subprocess.Popen(
        ["python", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        text=True,
    ) as other:
        port = other.stdout.readline().split(" port ")[1].split()[0]
        said = servers.call(served.env, "finetune", "serve", "--port", port, code=2)
        other.terminate()
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said.splitlines()[-1]


def test_the_server_of_the_readme_starts_in_a_terminal_without_a_question(tmp_path):
    readme = (servers.REPOSITORY / "README.md").read_text()
    (command,) = re.findall(r"^    (prefect .*server start) ", readme, re.MULTILINE)
    port = servers.free_port()
    env = servers.fresh_environment(tmp_path, port) | {"PREFECT_SERVER_API_PORT": str(port)}
    del env["PREFECT_API_URL"]  # a server with another address than the profile's asks most
    ours, terminal = pty.openpty()
    running = subprocess.Popen(
        command.split(), env=env, stdin=terminal, stdout=terminal, stderr=terminal
    )
    try:
        log = tmp_path / "none.log"
        log.touch()
        servers.wait_until(lambda: servers.healthy(port), log, running)
    finally:
        running.terminate()
        running.wait(60)
        os.close(terminal)
        os.close(ours)


def test_ctrl_c_in_the_terminal_of_a_run_writes_a_checkpoint_and_leaves_no_process(
    tiny_model, tmp_path
):
    profile = write_small_profile(tmp_path / "small.yaml", tiny_model)
    env = servers.fresh_environment(tmp_path, 0)
    del env["PREFECT_API_URL"]  # so that the run starts a server of its own
    command = ["finetune", "run", "--profile", str(profile), "--set", "train.max_steps=2000"]
    child, terminal = pty.fork()
    if not child:
        os.execvpe(command[0], command, env)
    said, asked = b"", False
    while select.select([terminal], [], [], servers.PATIENCE_S)[0]:
        try:
            said += os.read(terminal, 65536)
        except OSError:  # nobody has the terminal open any more
            break
        steps = (tmp_path / "home").glob("artifacts/.work/train-*/scratch/metrics.jsonl")
        if not asked and any(path.stat().st_size for path in steps):
            family = psutil.Process(child).children(recursive=True)
            os.write(terminal, b"\x03")
            asked = True
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2, said.decode()
    assert b"training was stopped at step" in said
    assert b"Traceback" not in said
    assert family  # the embedded server
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
