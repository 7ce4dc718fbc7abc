"""Real runs killed in Prefect's commit and in training, and two at once on one store."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.settings.hardware import HardwareSettings
from tasks.core.system.gpu_lock import gpu_turn
from tests.conftest import write_small_profile
from tests.integration import servers
from tests.integration.test_nightly import WORKER, submit

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1200)]
TO_TRAIN = servers.STAGES[:6]

# `finetune` that kills itself when a function is called for the n-th time
SUICIDAL = """
import os, signal, sys
from prefect.results import ResultStore
from prefect.transactions import Transaction
from flows.orchestration.stage_task import PlannedHits
from tasks.training.loop import Loop

places = {
    "commit": (Transaction, "commit"),
    "result": (ResultStore, "persist_result_record"),
    "key": (PlannedHits, "write_path"),
    "step": (Loop, "_update"),
}
owner, name = places[sys.argv[1]]
function, calls = getattr(owner, name), []

def deadly(*arguments, **options):
    calls.append(1)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments, **options)

setattr(owner, name, deadly)
from flows.cli import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def deployed(tiny_model, tmp_path_factory):
    """A server with the deployments: (environment, folder, profile)."""
    folder = tmp_path_factory.mktemp("trust")
    profile = write_small_profile(folder / "small.yaml", tiny_model)
    with servers.server(folder) as env:
        servers.set_up(env)
        yield env, folder, profile


def run_options(profile, stages, *changes):
    options = ["run", "--profile", str(profile)]
    options += [word for stage in stages for word in ("--only", stage)]
    return options + [word for change in changes for word in ("--set", change)]


def killed(env, place, count, options):
    command = [sys.executable, "-c", SUICIDAL, place, str(count), *options]
    done = subprocess.run(
        command, env=env, cwd=servers.REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def made(home):
    """{stage: (folder, time of its making)} of all artifacts."""
    found = (p for p in Path(home).glob("artifacts/*/*") if len(p.name) == 12)
    return {p.parent.name: (p.name, p.stat().st_mtime_ns) for p in found if p.is_dir()}


def manifest(home, stage):
    (path,) = Path(home).glob(f"artifacts/{stage}/*/manifest.json")
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("place", ["commit", "result", "key"])
def test_run_killed_in_prefects_own_commit_keeps_its_stage_and_goes_on(deployed, tmp_path, place):
    env, _, profile = deployed
    env = env | {"FINETUNE_HOME": str(tmp_path)}
    options = run_options(profile, ["base", "ingest"])
    killed(env, place, 1, options)
    before = made(tmp_path)
    assert set(before) == {"base"}
    said = servers.call(env, "finetune", *options)
    assert "ingest: runs\n" in said
    assert "base: runs" not in said
    assert made(tmp_path)["base"] == before["base"]
    assert list(Path(tmp_path).glob("artifacts/.work/*")) == []


def test_run_killed_in_training_resumes_to_the_same_adapter_and_repeats_nothing(deployed, tmp_path):
    env, _, profile = deployed
    homes = {name: env | {"FINETUNE_HOME": str(tmp_path / name)} for name in ("killed", "whole")}
    changes = ["train.max_steps=11", "train.checkpoint_every=5"]
    options = run_options(profile, TO_TRAIN, *changes)
    killed(homes["killed"], "step", 8, options)
    before = made(tmp_path / "killed")
    assert set(before) == set(TO_TRAIN) - {"train"}
    for home in homes.values():
        servers.call(home, "finetune", *options)
    after = made(tmp_path / "killed")
    assert {stage: after[stage] for stage in before} == before
    again, once = (manifest(tmp_path / name, "train") for name in ("killed", "whole"))
    assert (again["key"], again["outputs"]) == (once["key"], once["outputs"])
    (facts,) = (tmp_path / "killed").glob("artifacts/train/*/training.json")
    assert json.loads(facts.read_bytes())["resumed_from"] == 5
    assert list((tmp_path / "killed").glob("artifacts/.work/*")) == []


def test_command_line_and_deployment_at_once_make_each_artifact_once(deployed):
    env, folder, profile = deployed
    changes = ["train.max_steps=5", "hardware.device=auto"]  # auto: waits for the lock of the GPU
    log, said = folder / "worker.log", folder / "run.log"
    command = ["finetune", *run_options(profile, TO_TRAIN, *changes)]
    parameters = {"profile": str(profile), "overrides": changes, "only": TO_TRAIN}
    waits = "another run is producing this artifact; waiting for it"

    def one_waits():
        return waits in "\n".join([*servers.log_lines(env, run), said.read_text()])

    with servers.process(WORKER, env, log), servers.process(command, env, said) as here:
        with gpu_turn(HardwareSettings(device="auto")):  # no training before both have come to it
            run = submit(env, "local-gpu", parameters)
            servers.wait_until(one_waits, log, here)
        (done,) = servers.wait_for_end(env, [run], log)
        assert here.wait(servers.PATIENCE_S) == 0, said.read_text()
    servers.completed(env, done)
    folders = [p for p in (folder / "home").glob("artifacts/*/*") if len(p.name) == 12]
    assert sorted(p.parent.name for p in folders) == sorted(TO_TRAIN)
    assert list((folder / "home").glob("artifacts/.work/*")) == []
    plan = ["finetune", "plan", *run_options(profile, TO_TRAIN, *changes)[1:]]
    assert "Nothing to do" in servers.call(env, *plan)


def test_two_runs_at_once_on_a_cold_prefect_home_both_reach_their_end(tiny_model, tmp_path):
    """Each starts a server of its own, which creates the same database."""
    profile = write_small_profile(tmp_path / "small.yaml", tiny_model)
    env = servers.fresh_environment(tmp_path, 0)
    del env["PREFECT_API_URL"]
    command = [sys.executable, "-m", "flows.cli", *run_options(profile, ["base", "ingest"])]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with (
        servers.process(command, env, logs[0]) as one,
        servers.process(command, env, logs[1]) as two,
    ):
        codes = one.wait(servers.PATIENCE_S), two.wait(servers.PATIENCE_S)
    said = [log.read_text() for log in logs]
    assert codes == (0, 0), said
    assert all("Done in" in text and "Traceback" not in text for text in said)
    assert set(made(tmp_path / "home")) == {"base", "ingest"}


def test_single_stage_of_a_deployment_cuts_off_early_and_names_what_is_missing(deployed):
    env, folder, profile = deployed
    log = folder / "worker.log"
    asked = [
        {"only": ["base", "ingest", "filter"]},
        {"only": ["ingest"], "force": ["ingest"]},
        {"only": ["base", "ingest", "filter"]},
        {"only": ["merge"], "overrides": ["train.seed=77"]},
    ]
    with servers.process(WORKER, env, log):
        ended = []
        for parameters in asked:
            run = submit(env, "local-gpu", {"profile": str(profile), **parameters})
            ended += servers.wait_for_end(env, [run], log)
    _, forced, third, merge = ended
    assert servers.task_states(env, forced["id"]) == {"ingest": "Completed"}
    assert set(servers.task_states(env, third["id"]).values()) == {"Cached"}
    assert merge["state_type"] == "FAILED"
    assert "stage merge needs" in merge["state"]["message"]
    assert "stage train has to run first" in merge["state"]["message"]
