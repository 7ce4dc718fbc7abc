"""Experiment trackers: settings, metrics and verdict of a training, by Accelerate's trackers.

Everything stays in tracking/ of the home folder, unless the variables of a tracker name a server
(MLFLOW_TRACKING_URI, WANDB_MODE=online, TRACKIO_SPACE_ID). A tracker that fails while it runs is
reported and disabled: no training ends because of it.

To add one: a function that returns Accelerate's tracker, and a line in `TRACKERS`.
"""

import importlib.util
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.system.atomic_write import write_text
from tasks.core.system.escape_text import first_line
from tasks.core.system.home import home

PROJECT, FOLDER, STATE_FILE = "finetune", "tracking", "tracking.json"


# drops what trackers print: the output of `finetune run --json` is JSON
_no_prints = partial(redirect_stdout, io.StringIO())


@dataclass(frozen=True)
class TrackedRun:
    """One run of a tracker.

    Attributes:
        name: Of the run.
        folder: Of what the trackers store on this machine.
        known: Id of the run that is continued; "" for a new one.
        first_step: Steps from this one on replace what an interrupted training logged.
        settings: Shown as its configuration; names with dots.
        notes: Texts to add, such as the verdict.
    """

    name: str
    folder: Path
    known: str = ""
    first_step: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def _tensorboard(run: TrackedRun) -> Any:
    from accelerate.tracking import TensorBoardTracker

    folder = run.folder / "tensorboard"
    tracker = TensorBoardTracker(run.name, folder, purge_step=run.first_step or None)
    tracker.start()
    if not run.first_step:
        tracker.store_init_configuration(dict(run.settings))
    if run.notes:
        tracker.log(dict(run.notes))
    return tracker


def _mlflow(run: TrackedRun) -> Any:
    from accelerate.tracking import MLflowTracker

    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # not how it creates its database
    is_local = "MLFLOW_TRACKING_URI" not in os.environ
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{run.folder / 'mlflow.db'}")
    tracker = MLflowTracker(
        PROJECT,
        logging_dir=(run.folder / "mlflow").as_uri() if is_local else None,
        run_id=run.known or None,
        run_name=run.name,
        tags=dict(run.notes),
    )
    tracker.start()
    if not run.known:  # MLflow refuses to set a value again
        tracker.store_init_configuration(dict(run.settings))
    return tracker


def _wandb(run: TrackedRun) -> Any:
    from accelerate.tracking import WandBTracker

    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")  # the messages are in log.txt
    options: dict[str, Any] = {"dir": str(run.folder), "config": dict(run.settings)}
    options |= {"name": run.name, "id": run.name.replace("/", "-"), "resume": "allow"}
    tracker = WandBTracker(PROJECT, allow_val_change=True, **options)
    tracker.start()
    tracker.tracker.summary.update(dict(run.notes))
    return tracker


def _trackio(run: TrackedRun) -> Any:
    os.environ.setdefault("TRACKIO_DIR", str(run.folder / "trackio"))  # read at the import
    import trackio
    from accelerate.tracking import TrackioTracker

    config = dict(run.settings)  # each start replaces that of the last
    tracker = TrackioTracker(PROJECT, name=run.name, resume="allow", config=config)
    tracker.start()
    tracker.finish = trackio.finish  # Accelerate's leaves the run to be finished again at exit
    if run.notes:
        tracker.log(dict(run.notes))
    return tracker


# name of the setting -> (module that has to be there, how a run is started)
TRACKERS: dict[str, tuple[str, Callable[[TrackedRun], Any]]] = {
    "tensorboard": ("tensorboard", _tensorboard),
    "mlflow": ("mlflow", _mlflow),
    "wandb": ("wandb", _wandb),
    "trackio": ("trackio", _trackio),
}


class Trackers:
    """The trackers of one training.

    Args:
        names: Keys of `TRACKERS`.
        scratch: Folder of the training that survives a kill; holds the ids of the runs.
        settings: Shown as the run's configuration.
        resume_step: Step of the checkpoint from which the training continues; -1: from the start.

    Raises:
        PipelineError: A tracker is not installed.
    """

    def __init__(
        self, names: Sequence[str], scratch: Path, settings: Mapping[str, Any], resume_step: int
    ) -> None:
        self._running: dict[str, Any] = {}
        if not names:
            return
        check_installed(names)
        state = _read(scratch / STATE_FILE) if resume_step >= 0 else {}
        state |= {"run": f"train/{scratch.parent.name}", "settings": _flat(settings)}
        self._running = _started(names, state, resume_step + 1, {})
        state["ids"] = _ids(self._running, state.get("ids", {}))
        write_text(scratch / STATE_FILE, json.dumps(state))

    def log(self, line: Mapping[str, Any]) -> None:
        """Log the metrics of a step."""
        values = {name: value for name, value in line.items() if name != "step"}
        self._each(lambda tracker: tracker.log(values, step=line["step"]))

    def finish(self) -> None:
        """Close the runs."""
        self._each(lambda tracker: tracker.finish())

    def _each(self, action: Callable[[Any], None]) -> None:
        for name, tracker in list(self._running.items()):
            try:
                with _no_prints():
                    action(tracker)
            except Exception as error:  # of a library that only watches
                del self._running[name]
                say(f"{name} no longer tracks the training: {first_line(error)}")


def check_installed(names: Sequence[str]) -> None:
    """Check that trackers are installed.

    Raises:
        PipelineError: One is not.
    """
    for name in names:
        if importlib.util.find_spec(TRACKERS[name][0]) is None:
            raise PipelineError(
                f"train.track_with names {name}, which is not installed",
                f"Install it (pip install 'finetune-pipeline[{name}]'), or remove it from "
                "train.track_with.",
            )


def add_results(artifact: Path, values: Mapping[str, float], notes: Mapping[str, str]) -> None:
    """Add what was measured after a training to its runs.

    Args:
        artifact: Of the training; without tracked runs nothing happens.
        values: Numbers by name.
        notes: Texts by name.
    """
    state = _read(artifact / STATE_FILE)
    names = [name for name in state.get("ids", {}) if name in TRACKERS]
    step = int(_read(artifact / "training.json").get("step", 0))
    for name, tracker in _started(names, state, step + 1, notes).items():
        try:
            with _no_prints():
                tracker.log(dict(values), step=step)
                tracker.finish()
        except Exception as error:  # as above
            say(f"{name} did not record the results: {first_line(error)}")


def _started(
    names: Sequence[str], state: Mapping[str, Any], first_step: int, notes: Mapping[str, str]
) -> dict[str, Any]:
    """Start or continue the run of each tracker."""
    if not names:
        return {}
    from accelerate import PartialState

    PartialState()  # Accelerate's trackers log through it
    folder = home() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    found, ids = {}, state.get("ids", {})
    for name in names:
        settings, known = state["settings"], ids.get(name, "")
        run = TrackedRun(state["run"], folder, known, first_step, settings, notes)
        try:
            with _no_prints():
                found[name] = TRACKERS[name][1](run)
        except Exception as error:  # as above
            say(f"{name} does not track the training: {first_line(error)}")
    return found


def _ids(trackers: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """Id by which each tracker finds its run again; others find it by its name."""
    infos = {name: getattr(tracker.tracker, "info", None) for name, tracker in trackers.items()}
    return {n: str(getattr(info, "run_id", known.get(n, ""))) for n, info in infos.items()}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as names with dots; lists as JSON."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
            continue
        found[prefix + name] = value if isinstance(value, (int, float, str)) else json.dumps(value)
    return found


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}
