"""`finetune doctor` against a real Prefect server: each fault is created, found and fixed."""

import http.server
import json
import subprocess
import sys
import threading
import urllib.error
from datetime import UTC, datetime

import pytest

from flows.orchestration import server_checks
from tests.integration import servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


PASSWORD = "admin:open-sesame"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Environment of a server with a password and nothing in it."""
    secret = {"PREFECT_SERVER_API_AUTH_STRING": PASSWORD, "PREFECT_API_AUTH_STRING": PASSWORD}
    with servers.server(tmp_path_factory.mktemp("doctor"), **secret) as env:
        yield env


@pytest.fixture
def look(running, monkeypatch):
    """Findings about the Prefect side as {name: finding}."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    for name in ("FINETUNE_HOME", "PREFECT_HOME", "PATH", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, running[name])
    url = {PREFECT_API_URL: running["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: PASSWORD}
    with temporary_settings(url):
        yield lambda: {finding.name: finding for finding in server_checks.check_server()}


def dead_process():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def claimed_run(env, state, process):
    """A run in a state, as a worker that died left it."""
    deployment = servers.api(env, "/deployments/name/finetune/local-gpu")["id"]
    run = servers.api(env, f"/deployments/{deployment}/create_flow_run", {})
    body = {"infrastructure_pid": str(process)}
    servers.api(env, f"/flow_runs/{run['id']}", body, method="PATCH")
    change = {"state": {"type": state}, "force": True}
    servers.api(env, f"/flow_runs/{run['id']}/set_state", change)
    return run["id"]


def state_of(env, run):
    return servers.api(env, f"/flow_runs/{run}")["state"]


def test_missing_pool_and_deployments_are_found_and_set_up(running, look):
    assert set(look()) == {"pool"}
    look()["pool"].fix()
    (pool,) = servers.api(running, "/work_pools/filter", {})
    assert (pool["name"], pool["concurrency_limit"]) == ("local-gpu", 1)
    assert set(look()) == {"worker"}  # deployments exist; the user starts a worker


def test_a_pool_that_lets_two_runs_onto_the_gpu_is_found_and_fixed(running, look):
    body = {"concurrency_limit": 2}
    servers.api(running, "/work_pools/local-gpu", body, method="PATCH")
    assert "limit 2" in look()["pool"].problem
    look()["pool"].fix()
    assert "pool" not in look()


def test_a_paused_pool_is_found_and_left_to_the_user(running, look):
    servers.api(running, "/work_pools/local-gpu", {"is_paused": True}, method="PATCH")
    finding = look()["pool"]
    assert "paused" in finding.problem
    assert finding.fix is None
    servers.call(running, *finding.remedy.split())
    assert "pool" not in look()


@pytest.mark.parametrize(("state", "end"), [("RUNNING", "Crashed"), ("CANCELLING", "Cancelled")])
def test_a_run_whose_process_is_gone_is_found_and_gets_its_end(running, look, state, end):
    process = dead_process()
    run = claimed_run(running, state, process)
    finding = look()["run"]
    assert run[:8] in finding.problem
    assert str(process) in finding.problem
    assert "slot of pool local-gpu" in finding.problem
    finding.fix()
    assert state_of(running, run)["name"] == end
    assert "run" not in look()


def test_a_dead_run_blocks_the_pool_until_it_is_fixed(running, look):
    """As a reboot leaves it: the worker is handed nothing, however much waits."""
    run = claimed_run(running, "RUNNING", dead_process())
    deployment = servers.api(running, "/deployments/name/finetune/local-gpu")["id"]
    waits = servers.api(running, f"/deployments/{deployment}/create_flow_run", {})["id"]

    def handed_out():
        path = "/work_pools/local-gpu/get_scheduled_flow_runs"
        due = {"scheduled_before": datetime.now(UTC).isoformat()}  # not the nights to come
        return [each["flow_run"]["id"] for each in servers.api(running, path, due)]

    assert handed_out() == []
    look()["run"].fix()
    assert state_of(running, run)["type"] == "CRASHED"
    assert handed_out() == [waits]
    servers.api(running, f"/flow_runs/{waits}", method="DELETE")


def test_a_run_whose_process_lives_is_left_alone(running, look):
    with subprocess.Popen(["sleep", "60"]) as alive:
        run = claimed_run(running, "RUNNING", alive.pid)
        assert "run" not in look()
        alive.kill()
        alive.wait()
    look()["run"].fix()
    assert state_of(running, run)["type"] == "CRASHED"


def test_a_missing_worker_is_found_until_it_runs(running, look, tmp_path):
    finding = look()["worker"]
    assert "prefect worker start --pool local-gpu" in finding.remedy
    worker = ["prefect", "worker", "start", "--pool", "local-gpu"]
    with servers.process(worker, running, tmp_path / "log") as process:
        servers.wait_until(lambda: "worker" not in look(), tmp_path / "log", process, 60)


@pytest.fixture
def old_server():
    """A server that knows nothing: (its address, what it tells for its version, as a list)."""
    version = [json.dumps("3.1.0")]

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(version[0].encode())

        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/api", version
        listening.shutdown()


def test_a_server_of_another_version_is_found_until_it_is_the_same(
    old_server, tmp_path, monkeypatch
):
    import prefect
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    url, version = old_server
    with temporary_settings({PREFECT_API_URL: url}):
        found = {finding.name: finding for finding in server_checks.check_server()}
        assert "3.1.0" in found["version"].problem
        version[0] = json.dumps(prefect.__version__)
        assert "version" not in {finding.name for finding in server_checks.check_server()}


def test_another_program_on_the_port_of_the_server_is_recognized(old_server, tmp_path, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    url, told = old_server
    told[0] = "<html>Hello.</html>"
    with temporary_settings({PREFECT_API_URL: url}):
        (finding,) = server_checks.check_server()
    assert f"the program that answers at {url} is not a Prefect server" in finding.problem


def test_no_server_is_found_with_the_command_that_starts_one():
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = f"http://127.0.0.1:{servers.free_port()}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        (finding,) = server_checks.check_server()
    assert url in finding.problem
    assert "finetune serve" in finding.remedy


def test_a_server_with_a_password_refuses_clients_without_it_and_doctor_reports_that(
    running, look, monkeypatch
):
    from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

    without = {k: v for k, v in running.items() if k != "PREFECT_API_AUTH_STRING"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        servers.api(without, "/flow_runs/filter", {})
    with temporary_settings(restore_defaults={PREFECT_API_AUTH_STRING}):
        finding = look()["server"]
    assert "401" in finding.problem
    assert "PREFECT_API_AUTH_STRING" in finding.remedy
    assert "server" not in look()  # the pool of the tests above was set up with the password
