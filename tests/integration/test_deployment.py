"""The README, on a real Prefect server: pool, deploy, worker, run, and again from the cache."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import write_small_profile

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ["base", "ingest", "filter", "prompt", "tokenize", "train", "evaluate", "merge"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(command, env, log):
    """A server process of this test; ended by its id, with all it started."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, env=env, cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, 9)
                running.wait(30)


@pytest.fixture
def prefect_home(tmp_path, tiny_model):
    """Environment of a fresh machine: own Prefect home, own FINETUNE_HOME, a server on loopback."""
    port = free_port()
    env = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "FINETUNE_HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    write_small_profile(tmp_path / "small.yaml", tiny_model)
    server = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with process(server, env, tmp_path / "server.log"):
        wait_for(f"http://127.0.0.1:{port}/api/health", tmp_path / "server.log")
        yield env


def wait_for(url, log, seconds=120):
    for _ in range(seconds * 2):
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"no answer from {url}:\n{log.read_text()}")


def prefect(env, *arguments):
    done = subprocess.run(
        ["prefect", *arguments],
        env=env,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"prefect {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def task_states(env):
    """{flow run id: {stage: name of its state}} of all runs, oldest first."""
    script = """
import asyncio, json
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
async def main():
    async with get_client() as client:
        runs = await client.read_flow_runs()
        runs.sort(key=lambda run: run.created)
        found = []
        for run in runs:
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
            tasks = await client.read_task_runs(flow_run_filter=wanted)
            found.append([run.state_name, {t.name.split(" ")[0]: t.state_name for t in tasks}])
        print(json.dumps(found))
asyncio.run(main())
"""
    out = subprocess.run(
        [sys.executable, "-c", script],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(out.stdout.splitlines()[-1])


def test_deployed_flow_completes_then_every_stage_is_cached(prefect_home, tmp_path):
    env = prefect_home
    prefect(env, "work-pool", "create", "local-gpu", "--type", "process")
    prefect(env, "work-pool", "set-concurrency-limit", "local-gpu", "1")
    prefect(env, "--no-prompt", "deploy", "--all")
    worker = ["prefect", "worker", "start", "--pool", "local-gpu"]
    run = [
        "deployment",
        "run",
        "finetune/local-gpu",
        "-p",
        f"profile={tmp_path / 'small.yaml'}",
        "-p",
        'overrides=["train.max_steps=3"]',
        "--watch",
    ]
    with process(worker, env, tmp_path / "worker.log"):
        for _ in range(2):
            done = subprocess.run(
                ["prefect", *run],
                env=env,
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                timeout=400,
                check=False,
            )
            assert done.returncode == 0, done.stdout + (tmp_path / "worker.log").read_text()
    (first_state, first), (second_state, second) = task_states(env)
    assert (first_state, second_state) == ("Completed", "Completed")
    assert first == dict.fromkeys(STAGES, "Completed")
    assert second == dict.fromkeys(STAGES, "Cached")
