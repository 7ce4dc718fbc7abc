"""Schedules and one GPU, with a real server and worker: no backlog, never two trainings at once."""

import json
import sqlite3
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tasks.core.settings.hardware import HardwareSettings
from tasks.core.system.gpu_lock import gpu_turn
from tests.conftest import REPOSITORY, write_small_profile
from tests.integration import servers

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1200)]
WAITS = "another run holds the GPU; waiting for it"
WORKER = ["prefect", "worker", "start", "--pool", servers.POOL]


@pytest.fixture(scope="module")
def deployed(tiny_model, tmp_path_factory):
    """A server with the deployments and no worker: (environment, folder, profile)."""
    folder = tmp_path_factory.mktemp("nightly")
    profile = write_small_profile(folder / "small.yaml", tiny_model)
    with servers.server(folder) as env:
        servers.set_up(env)
        # its schedule must not start a run of its own while the tests run
        path = f"/deployments/{deployment_id(env, 'nightly')}"
        servers.api(env, path, {"paused": True}, method="PATCH")
        yield env, folder, profile


def deployment_id(env, name):
    return servers.api(env, f"/deployments/name/finetune/{name}")["id"]


def submit(env, name, parameters, when=None):
    body = {"parameters": parameters}
    if when is not None:
        details = {"scheduled_time": when.isoformat()}
        body["state"] = {"type": "SCHEDULED", "state_details": details}
    return servers.api(env, f"/deployments/{deployment_id(env, name)}/create_flow_run", body)["id"]


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
        *old, newest, hand = servers.wait_for_end(env, [*missed, by_hand], log)
    assert [run["state_name"] for run in old] == ["Superseded", "Superseded"]
    assert "superseded by run" in old[0]["state"]["message"]
    assert [servers.task_states(env, run["id"]) for run in old] == [{}, {}]
    assert newest["state_name"] == hand["state_name"] == "Completed"
    assert set(servers.task_states(env, newest["id"])) == {"base", "ingest"}
    assert set(servers.task_states(env, hand["id"])) == {"base", "ingest"}


def training_times(home: Path):
    """(begin, end) of the training steps of every training in a home."""
    for folder in (home / "artifacts" / "train").iterdir():
        if len(folder.name) == 12:
            end = datetime.fromisoformat(
                json.loads((folder / "manifest.json").read_text())["made"]["created"]
            )
            seconds = json.loads((folder / "training.json").read_text())["seconds"]
            yield end - timedelta(seconds=seconds), end


def test_trainings_never_share_the_gpu_whoever_starts_them(deployed):
    """Two deployments at once with two workers, and the command line in a home of its own."""
    env, folder, profile = deployed
    # "auto" takes the lock of the GPU also where there is none
    changes = ["train.max_steps=15", "hardware.device=auto"]
    only = servers.STAGES[:6]
    log = folder / "worker.log"
    # a service and a terminal can have different ones
    other = env | {"FINETUNE_HOME": str(folder / "other"), "TMPDIR": str(folder)}
    command = ["finetune", "run", "--profile", str(profile)]
    command += [word for stage in only for word in ("--only", stage)]
    command += [word for change in changes for word in ("--set", change)]
    parameters = {"profile": str(profile), "only": only}
    with ExitStack() as started:
        with gpu_turn(HardwareSettings(device="auto")):  # until both have come to their training
            from_here = servers.process(command, other, folder / "run.log")
            run = started.enter_context(from_here)
            for _ in range(2):
                started.enter_context(servers.process(WORKER, env, log))
            runs = [
                submit(env, name, parameters | {"overrides": [*changes, f"train.seed={seed}"]})
                for seed, name in enumerate(("local-gpu", "nightly"))
            ]
            servers.wait_until(lambda: WAITS in (folder / "run.log").read_text(), log, run)
            servers.wait_until(
                lambda: any(WAITS in "".join(servers.log_lines(env, r)) for r in runs), log
            )
        done = servers.wait_for_end(env, runs, log)
        assert run.wait(servers.PATIENCE_S) == 0, (folder / "run.log").read_text()
    assert [run["state_name"] for run in done] == ["Completed", "Completed"]
    times = sorted([*training_times(folder / "home"), *training_times(folder / "other")])
    assert len(times) == 3
    slack = timedelta(seconds=1.5)  # ends are kept in whole seconds
    assert all(later > end - slack for (_, end), (later, _) in pairwise(times))


@pytest.fixture
def rows(tmp_path):
    """A file with all but the last ten rows of the sample; call it to add those."""
    lines = (REPOSITORY / "data/sample/instructions.jsonl").read_text().splitlines(keepends=True)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(lines[:-10]))
    return file, lambda: file.write_text("".join(lines))


def champion(env):
    """(key of the champion's artifact, how many changes are on record)."""
    told = json.loads(servers.call(env, "finetune", "champion", "--json"))
    return told["champion"]["key"], len(told["history"])


@pytest.mark.timeout(2400)
def test_nightly_promotes_has_nothing_to_do_goes_on_with_new_rows_and_leaves_a_rollback(
    deployed, rows
):
    env, folder, profile = deployed
    file, add_rows = rows
    changes = ["train.max_steps=20", "train.learning_rate=0.02", "evaluate.probe_problems=0"]
    changes += ["train.start.adapter=champion"]
    source = f"ingest.sources=[{{kind: files, name: rows, path: {file}, licence: CC0-1.0}}]"
    parameters = {"profile": str(profile), "overrides": [*changes, source]}
    log = folder / "worker.log"

    def night():
        (run,) = servers.wait_for_end(env, [submit(env, "nightly", parameters)], log)
        return servers.completed(env, run)

    with servers.process(WORKER, env, log):
        first = night()
        assert servers.task_states(env, first["id"])["merge"] == "Completed"
        servers.wait_for_log(env, first["id"], "promoted", log)
        told = [x for x in servers.log_lines(env, first["id"]) if "promoted" in x]
        assert [x[:9] for x in told] == ["promoted:"], told
        promoted = champion(env)
        second = night()
        add_rows()
        night()
        again = [*changes, source, "evaluate.max_new_tokens=9"]
        run = ["prefect", "deployment", "run", "finetune/local-gpu", "--watch"]
        run += ["-p", f"profile={profile}", "-p", f"overrides={json.dumps(again)}"]
        servers.call(env, *run, "-p", 'only=["evaluate"]')
        evaluated = servers.started_runs(env)[-1]

        # a person takes the newest model back; the next night leaves it at that
        same = ["--profile", str(profile)]
        same += [word for change in [*changes, source] for word in ("--set", change)]
        servers.call(env, "finetune", "promote", *same, "--force", "--because", "a test")
        servers.call(env, "finetune", "rollback", "--because", "answers got shorter")
        after_rollback = champion(env)
        fourth = night()
    assert promoted[1] == 1
    link = folder / "home" / "artifacts" / "champion"
    assert (link / "model" / "config.json").is_file()
    assert "Nothing to do" in fourth["state"]["message"]
    assert champion(env) == after_rollback
    assert after_rollback[0] == promoted[0]
    assert "Nothing to do" in second["state"]["message"]
    logs = (folder / "home" / "artifacts" / "train").glob("*/log.txt")
    start = " said: train: starts from the champion"
    told = [x for log in logs for x in log.read_text().splitlines() if start in x]
    assert len(told) == 1, told
    assert "champion: 0 new rows" not in told[0]
    assert servers.task_states(env, evaluated["id"]) == {"evaluate": "Completed"}


def test_a_run_that_a_person_has_to_mend_ends_with_two_lines_and_no_traceback(deployed):
    env, folder, profile = deployed
    log = folder / "worker.log"
    wrong = {"profile": str(profile), "overrides": ["train.last_layers=9"]}
    with servers.process(WORKER, env, log):
        runs = [submit(env, "local-gpu", p) for p in ({"profile": "/nowhere.yaml"}, wrong)]
        absent, refused = servers.wait_for_end(env, runs, log)
        for run in (absent, refused):  # a stopped worker ends runs that have not sent their log yet
            servers.wait_for_log(env, run["id"], run["state"]["message"], log)
    for run, problem in ((absent, "does not exist"), (refused, "last_layers is 9")):
        assert run["state_name"] == "Failed"
        assert problem in run["state"]["message"].splitlines()[0]
        assert len(run["state"]["message"].splitlines()) == 2
        said = "\n".join(servers.log_lines(env, run["id"]))
        assert run["state"]["message"] in said
        assert "Traceback" not in said
    assert servers.task_states(env, refused["id"])["train"] == "Failed"
