"""The README, on a real Prefect server: pool, deploy, worker, run, and again from the cache."""

import contextlib
import os
import pty
import re
import subprocess
import threading
import time

import pytest
import yaml

from tests.conftest import write_small_profile
from tests.integration import servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SECRET = "hf_" + "q1w2e3r4" * 4


@pytest.fixture(scope="module")
def deployed(tiny_model, tmp_path_factory):
    """Two runs of finetune/local-gpu through a worker: (environment, folder, runs, seconds)."""
    folder = tmp_path_factory.mktemp("deployment")
    profile = write_small_profile(folder / "small.yaml", tiny_model)
    run = ["prefect", "deployment", "run", "finetune/local-gpu", "-p", f"profile={profile}"]
    run += ["-p", 'overrides=["train.max_steps=3", "evaluate.probe_problems=0"]', "--watch"]
    worker = ["prefect", "worker", "start", "--pool", servers.POOL]
    with servers.server(folder, HF_TOKEN=SECRET) as env:
        servers.set_up(env)
        with servers.process(worker, env, folder / "worker.log"):
            for _ in range(2):
                servers.call(env, *run)
        yield env, folder, servers.started_runs(env)


def test_deployed_flow_completes_then_every_stage_is_cached(deployed):
    env, _, runs = deployed
    assert [run["state_name"] for run in runs] == ["Completed", "Completed"]
    first, second = (servers.task_states(env, run["id"]) for run in runs)
    assert first == dict.fromkeys(servers.STAGES, "Completed")
    assert second == dict.fromkeys(servers.STAGES, "Cached")


def test_run_without_changes_ends_within_seconds_and_says_so(deployed):
    _, _, (_, second) = deployed
    assert "Nothing to do" in second["state"]["message"]
    assert second["total_run_time"] < 20


def test_schedule_of_the_nightly_deployment_makes_runs_at_its_hour(deployed):
    env, folder, _ = deployed
    deployment = servers.api(env, "/deployments/name/finetune/nightly")["id"]
    wanted = {"deployment_id": {"any_": [deployment]}}
    servers.wait_until(lambda: servers.flow_runs(env, **wanted), folder / "server.log")
    runs = servers.flow_runs(env, **wanted)
    assert {(run["state_name"], run["auto_scheduled"]) for run in runs} == {("Scheduled", True)}
    assert {run["expected_start_time"][11:16] for run in runs} == {"03:00"}


def test_page_of_a_run_tells_the_story_also_when_all_was_cached(deployed):
    env, _, runs = deployed
    for run in runs:
        wanted = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
        found = {a["key"]: a["type"] for a in servers.api(env, "/artifacts/filter", wanted)}
        bars = {key for key in found if key.startswith("progress-")}
        assert {key: kind for key, kind in found.items() if key not in bars} == {
            "plan": "markdown",
            "funnel": "table",
            "funnel-picture": "markdown",
            "loss": "markdown",
            "verdict": "markdown",
            "metrics": "table",
            "report": "markdown",
            "report-page": "markdown",
        }


def test_the_command_of_the_readme_deploys_in_a_terminal_without_a_question(deployed):
    env, _, _ = deployed
    readme = (servers.REPOSITORY / "README.md").read_text()
    (command,) = re.findall(r"^    (prefect .*deploy --all)$", readme, re.MULTILINE)
    ours, terminal = pty.openpty()
    said = bytearray()

    def read():
        with contextlib.suppress(OSError):  # the other side was closed
            while chunk := os.read(ours, 4096):
                said.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = subprocess.run(
            command.split(),
            env=env,
            cwd=servers.REPOSITORY,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            timeout=servers.PATIENCE_S,
            check=False,
        )
    finally:
        os.close(terminal)
        reader.join(10)
        os.close(ours)
    assert done.returncode == 0, said.decode()
    assert b"[y/n]" not in said


def test_runs_and_tasks_are_named_by_what_they_do(deployed):
    env, _, runs = deployed
    wanted = {"flow_runs": {"id": {"any_": [runs[1]["id"]]}}}
    tasks = servers.api(env, "/task_runs/filter", wanted)
    assert {task["name"] for task in tasks} == {f"{stage} · hit" for stage in servers.STAGES}
    assert {run["name"] for run in runs} == {"small"}
    assert {tuple(run["tags"]) for run in runs} == {("finetune",)}


def test_a_secret_of_the_environment_is_written_nowhere(deployed):
    _, folder, _ = deployed
    time.sleep(2)  # logs are sent in batches
    hiding = [p for p in folder.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert hiding == []


PAGE = (servers.REPOSITORY / "docs" / "operations.md").read_text().partition("## Elsewhere")[2]


@pytest.mark.parametrize("pool", ["docker-gpu", "kubernetes-gpu"])
def test_pools_elsewhere_are_made_and_deployed_to_as_the_page_says(deployed, tmp_path, pool):
    """As far as it goes without containers: the page's commands and its part of prefect.yaml."""
    env, _, _ = deployed
    commands = re.findall(rf"^    (prefect work-pool \S+ {pool}.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        servers.call(env, *command.split())
    blocks = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    (wanted,) = (b["work_pool"] for b in blocks if b["work_pool"]["name"] == pool)
    file = yaml.safe_load((servers.REPOSITORY / "prefect.yaml").read_text())
    file["deployments"] = [{**file["deployments"][0], "name": pool, "work_pool": wanted}]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(file))
    changed = ["--prefect-file", str(tmp_path / "prefect.yaml")]
    servers.call(env, "prefect", "--no-prompt", "deploy", "--all", *changed)
    made = servers.api(env, f"/deployments/name/finetune/{pool}")
    assert made["entrypoint"] == "flows.finetune.finetune"
    assert made["job_variables"] == wanted["job_variables"]
    (there,) = servers.api(env, "/work_pools/filter", {"work_pools": {"name": {"any_": [pool]}}})
    assert (there["type"], there["concurrency_limit"]) == (pool.removesuffix("-gpu"), 1)
