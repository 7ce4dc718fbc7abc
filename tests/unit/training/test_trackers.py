"""Experiment trackers. Each runs for real where it is installed, in a process of its own, because
their requirements may replace packages: set TRACKERS to the folder of `pip install --target FOLDER
mlflow-skinny tensorboard trackio wandb`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.core import progress
from tasks.training.report import trackers
from tasks.training.report.trackers import STATE_FILE, Trackers, add_results
from tests.conftest import REPOSITORY

TARGET = os.environ.get("TRACKERS", "")
SETTINGS = {"train": {"lora_rank": 8, "start": {"adapter": "base"}, "track_with": ["x"]}}
TRAINING = f"""
import json, shutil, sys
from pathlib import Path
from tasks.training.report.trackers import STATE_FILE, Trackers, add_results

name, scratch, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
for step, known in ((2, -1), (4, 2)):  # the second is resumed from step 2
    running = Trackers([name], scratch, {SETTINGS!r}, known)
    running.log({{"step": step, "loss": 4.0 / step}})
    running.finish()
shutil.copy(scratch / STATE_FILE, out / STATE_FILE)
(out / "training.json").write_text(json.dumps({{"step": 4}}))
add_results(out, {{"loss/held-out/tuned": 0.9}}, {{"verdict": "improved"}})
"""
READ = {
    "mlflow": """
import json, mlflow
client = mlflow.MlflowClient()
(run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
history = client.get_metric_history(run.info.run_id, "loss")
print(json.dumps({"loss": [[m.step, m.value] for m in history], "name": run.info.run_name,
    "settings": run.data.params, "verdict": run.data.tags["verdict"],
    "tuned": run.data.metrics["loss/held-out/tuned"]}))
""",
    "trackio": """
import json
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("finetune")
logs = SQLiteStorage.get_logs("finetune", name)
of = lambda key: [log[key] for log in logs if key in log]
print(json.dumps({"loss": [[log["step"], log["loss"]] for log in logs if "loss" in log],
    "name": name, "settings": SQLiteStorage.get_run_config("finetune", name),
    "verdict": of("verdict")[0], "tuned": of("loss/held-out/tuned")[0]}))
""",
    "tensorboard": """
import json, os
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
top = Path(os.environ["FINETUNE_HOME"], "tracking/tensorboard")
events = EventAccumulator(str(top / "train/train-0123"))
events.Reload()
(settings,) = top.glob("**/hparams.yml")
(verdict,) = events.Tensors("verdict/text_summary")
print(json.dumps({"loss": [[one.step, one.value] for one in events.Scalars("loss")],
    "name": str(settings.parents[1].relative_to(top)),
    "settings": dict(line.split(": ") for line in settings.read_text().splitlines()),
    "verdict": verdict.tensor_proto.string_val[0].decode(),
    "tuned": round(events.Scalars("loss/held-out/tuned")[0].value, 6)}))
""",
    # an offline run is a log of records in blocks of 32 KiB, which `wandb sync` sends; a resumed
    # training and its results are further logs with the same id
    "wandb": """
import json, os, struct
from pathlib import Path
from wandb.proto import wandb_internal_pb2
def records(data, at=7):
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        assert kind == 1  # none of these is longer than its block
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data[at + 7 : at + 7 + size])
        yield record
        at += 7 + size
pick = lambda items: {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
logs, found = Path(os.environ["FINETUNE_HOME"], "tracking/wandb"), {"loss": []}
for path in sorted(logs.glob("offline-run-*/*.wandb"), key=lambda one: one.stat().st_mtime):
    for record in records(path.read_bytes()):
        if record.HasField("run"):
            found |= {"name": record.run.display_name, "settings": pick(record.run.config.update)}
        elif record.HasField("summary"):
            found |= {"verdict": pick(record.summary.update).get("verdict", found.get("verdict"))}
        elif record.HasField("history"):
            values = pick(record.history.item)
            if "loss" in values:
                found["loss"].append([record.history.step.num, values["loss"]])
            found["tuned"] = values.get("loss/held-out/tuned")
print(json.dumps(found))
""",
}


def is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None or (Path(TARGET or "none") / name).is_dir()


def output(words: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        words, env=environment, check=True, timeout=250, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


@pytest.mark.parametrize("name", READ)
def test_a_real_tracker_has_settings_metrics_and_verdict_of_a_resumed_training(
    name: str, tmp_path: Path
) -> None:
    if not is_there(name):
        pytest.skip(f"{name} is not installed; TRACKERS may name a folder that has it")
    scratch, out = tmp_path / "train-0123" / "scratch", tmp_path / "out"
    scratch.mkdir(parents=True)
    out.mkdir()
    home = tmp_path / "home"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), TARGET])),
        "FINETUNE_HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",
    }
    words = [sys.executable, "-c", TRAINING, name, str(scratch), str(out)]
    printed = subprocess.run(
        words, env=environment, check=True, timeout=250, stdout=subprocess.PIPE
    )
    assert printed.stdout == b""  # it would be in the JSON of `finetune run --json`
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{home / 'tracking' / 'mlflow.db'}"
    environment["TRACKIO_DIR"] = str(home / "tracking" / "trackio")
    text = output([sys.executable, "-c", READ[name]], environment)
    found = json.loads(text.splitlines()[-1])
    assert found["loss"] == [[2, 2.0], [4, 1.0]]
    assert found["name"] == "train/train-0123"
    assert (found["verdict"], found["tuned"]) == ("improved", 0.9)
    assert int(found["settings"]["train.lora_rank"]) == 8


class StandIn:
    """Accelerate's interface."""

    def __init__(self, run: Any) -> None:
        self.run, self.tracker, self.seen = run, None, []

    def log(self, values: Any, step: int) -> None:
        if values.get("loss") == 0:
            raise RuntimeError("no network")
        self.seen.append((step, values))

    def finish(self) -> None:
        self.seen.append("end")


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[StandIn]:
    made: list[StandIn] = []

    def start(run: Any) -> StandIn:
        made.append(StandIn(run))
        return made[-1]

    monkeypatch.setitem(trackers.TRACKERS, "trackio", ("json", start))
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    return made


def test_settings_are_flat_and_a_resumed_run_is_known(
    stand_ins: list[StandIn], tmp_path: Path
) -> None:
    Trackers(["trackio"], tmp_path, SETTINGS, -1)
    Trackers(["trackio"], tmp_path, SETTINGS, 4)
    flat = {"train.lora_rank": 8, "train.start.adapter": "base", "train.track_with": '["x"]'}
    assert [one.run.settings for one in stand_ins] == [flat, flat]
    assert [one.run.first_step for one in stand_ins] == [0, 5]


def test_a_tracker_that_fails_is_reported_once_and_training_goes_on(
    stand_ins: list[StandIn], tmp_path: Path
) -> None:
    told: list[str] = []

    class Sink:
        def update(self, *_: Any) -> None: ...

        def message(self, text: str) -> None:
            told.append(text)

    with progress.sink(Sink()):
        running = Trackers(["trackio"], tmp_path, SETTINGS, -1)
        for step, loss in enumerate((2.0, 0, 1.0), 1):
            running.log({"step": step, "loss": loss})
        running.finish()
    assert told == ["trackio no longer tracks the training: no network"]
    assert stand_ins[0].seen == [(1, {"loss": 2.0})]


def test_a_training_without_trackers_gets_no_results(tmp_path: Path) -> None:
    add_results(tmp_path, {"loss": 1.0}, {"verdict": "improved"})
    assert not (tmp_path / STATE_FILE).exists()
