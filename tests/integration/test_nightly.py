"""Schedules and one GPU, with a real server and worker: no backlog, never two trainings at once."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import write_small_profile
from tests.integration import servers

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(300)]
WORKER = ["prefect", "worker", "start", "--pool", servers.POOL]


@pytest.fixture(scope="module")
def deployed(tiny_model, tmp_path_factory):
    """A server with the deployments and no worker: (environment, folder, profile)."""
    folder = tmp_path_factory.mktemp("nightly")
    profile = write_small_profile(folder / "small.yaml", tiny_model)
    with servers.server(folder) as env:
        servers.set_up(env)
        yield env, folder, profile


def deployment_id(env, name):
    return servers.api(env, f"/deployments/name/finetune/{name}")["id"]


def submit(env, name, parameters, when=None):
    body = {"parameters": parameters}
    if when is not None:
        details = {"scheduled_time": when.isoformat()}
        body["state"] = {"type": "SCHEDULED", "state_details": details}
    return servers.api(env, f"/deployments/{deployment_id(env, name)}/create_flow_run", body)["id"]


def wait_for_end(env, ids, log):
    def ended():
        found = servers.flow_runs(env, id={"any_": ids})
        return all(run["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for run in found)

    servers.wait_until(ended, log, seconds=200)
    found = {run["id"]: run for run in servers.flow_runs(env, id={"any_": ids})}
    return [found[each] for each in ids]


def call_scheduled(folder, ids):
    """Mark runs as made by a schedule; no API can make those."""
    with sqlite3.connect(folder / "prefect" / "prefect.db", timeout=30) as database:
        marks = ", ".join("?" for _ in ids)
        database.execute(f"UPDATE flow_run SET auto_scheduled = 1 WHERE id IN ({marks})", ids)


def test_after_a_downtime_only_the_newest_scheduled_run_does_the_work(deployed):
    env, folder, profile = deployed
    now = datetime.now(UTC)
    parameters = {"profile": str(profile), "only": ["base", "ingest"]}
    nights = [now - timedelta(days=days) for days in (3, 2, 1)]
    missed = [submit(env, "nightly", parameters, night) for night in nights]
    by_hand = submit(env, "nightly", parameters, now - timedelta(days=4))
    call_scheduled(folder, missed)
    log = folder / "worker.log"
    with servers.process(WORKER, env, log):
        *old, newest, hand = wait_for_end(env, [*missed, by_hand], log)
    assert [run["state_name"] for run in old] == ["Superseded", "Superseded"]
    assert "superseded by run" in old[0]["state"]["message"]
    assert [servers.task_states(env, run["id"]) for run in old] == [{}, {}]
    assert newest["state_name"] == hand["state_name"] == "Completed"
    assert set(servers.task_states(env, newest["id"])) == {"base", "ingest"}
    assert set(servers.task_states(env, hand["id"])) == {"base", "ingest"}


def training_time(home: Path):
    """(begin, end) of the training steps of the one training in a home."""
    (folder,) = (p for p in (home / "artifacts" / "train").iterdir() if len(p.name) == 12)
    made = json.loads((folder / "manifest.json").read_text())["made"]
    end = datetime.fromisoformat(made["created"])
    seconds = json.loads((folder / "training.json").read_text())["seconds"]
    return end - timedelta(seconds=seconds), end


def test_two_trainings_never_share_the_gpu_whoever_starts_them(deployed):
    """One through the worker, one from the command line, each in a home of its own."""
    env, folder, profile = deployed
    # "auto" takes the lock of the GPU also where there is none
    changes = ["train.max_steps=15", "hardware.device=auto"]
    only = servers.STAGES[:6]
    log = folder / "worker.log"
    other = env | {"FINETUNE_HOME": str(folder / "other")}
    command = ["finetune", "run", "--profile", str(profile)]
    command += [word for stage in only for word in ("--only", stage)]
    command += [word for change in changes for word in ("--set", change)]
    from_here = servers.process(command, other, folder / "run.log")
    with servers.process(WORKER, env, log), from_here as run:
        parameters = {"profile": str(profile), "overrides": changes, "only": only}
        (done,) = wait_for_end(env, [submit(env, "local-gpu", parameters)], log)
        assert run.wait(120) == 0, (folder / "run.log").read_text()
    assert done["state_name"] == "Completed"
    said = [*servers.log_lines(env, done["id"]), (folder / "run.log").read_text()]
    assert any("another run holds the GPU; waiting for it" in text for text in said)
    (_, first_end), (second_begin, _) = sorted(
        [training_time(folder / "home"), training_time(folder / "other")]
    )
    assert second_begin > first_end - timedelta(seconds=1.5)  # ends are kept in whole seconds


def test_nightly_promotes_an_improvement_and_then_has_nothing_to_do(deployed):
    env, folder, profile = deployed
    changes = ["train.max_steps=20", "train.learning_rate=0.02", "evaluate.probe_problems=0"]
    parameters = {"profile": str(profile), "overrides": changes}
    log = folder / "worker.log"
    with servers.process(WORKER, env, log):
        runs = [submit(env, "nightly", parameters)]
        wait_for_end(env, runs, log)
        runs.append(submit(env, "nightly", parameters))
        first, second = wait_for_end(env, runs, log)
    said = servers.log_lines(env, first["id"])
    assert any(text.startswith("promoted: merge/") for text in said), said
    champion = folder / "home" / "artifacts" / "champion"
    assert (champion / "model" / "config.json").is_file()
    assert "Nothing to do" in second["state"]["message"]
    assert second["total_run_time"] < 20
