"""Adds verdict, measurements and the paths of the results to a training's tracked runs."""

import re
from collections.abc import Mapping
from pathlib import Path

from flows.session import Session
from tasks.core.cache.manifest import Manifest
from tasks.evaluation.challenger import read_json
from tasks.training.report.trackers import add_results

_REFUSED = re.compile(r"[^\w./ -]")  # in names of MLflow


def track_results(session: Session, made: Mapping[str, Manifest]) -> None:
    """Add the results of a run that evaluated or merged a model.

    Args:
        session: Of the run.
        made: Its artifacts by stage.
    """
    if not {"train", "evaluate"} <= made.keys():
        return
    folders = {name: session.store.folder(name, manifest.key) for name, manifest in made.items()}
    gate = read_json(session.store, made["evaluate"], "gate")
    values: dict[str, float] = {}
    for c in gate.get("comparisons", ()):
        name = _REFUSED.sub("_", f"{c['name']}/{c['on']}")
        values |= {f"{name}/{side}": c[side] for side in ("base", "tuned", "difference")}
    notes = {"verdict": str(gate.get("verdict", "")), "reasons": " ".join(gate.get("reasons", ()))}
    places = {
        "adapter": folders["train"] / "adapter",
        "report": folders["evaluate"] / "report.html",
        "model": folders.get("merge", Path("none")) / "model",
    }
    notes |= {name: str(path) for name, path in places.items() if path.exists()}
    add_results(folders["train"], values, notes)
