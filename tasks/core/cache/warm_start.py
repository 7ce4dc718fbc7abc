"""Warm start: a stage starts from outputs of the champion's artifacts.

A stage declares them in `warm_start`; they are read if its setting `<stage>.start` is the champion,
and their digests enter the key. A champion is not trained again from itself: as long as nothing has
changed since it was produced, its own start stays in the key, so that the stage is a hit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.artifacts import champion as champions
from tasks.core.artifacts.champion import ChampionChange
from tasks.core.cache.cache_key import Parts, canonical
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError
from tasks.core.stage import CHAMPION, Stage

FIELD = "start"


def started(stage: Stage, parts: Parts, store: Store) -> Parts:
    """The parts of a stage's key with the digests of what it starts from.

    Without a champion, or with one on another base, the stage starts from the base and the parts
    are unchanged.

    Raises:
        PipelineError: An artifact of the champion is incomplete.
    """
    start = parts["config"].get(f"{stage.name}.{FIELD}", {})
    if not stage.warm_start or start.get("adapter") != "champion":
        return parts
    standing = champions.standing(champions.history(store.root))
    if not standing:
        return parts
    champion = standing[-1]
    own = _artifact(store, champion, stage.name)
    if _bare(own.parts, stage.name) == _bare(parts, stage.name):
        return own.parts
    if any(own.parts["inputs"].get(n) != parts["inputs"][n] for n in _fixed(stage)):
        return parts
    digests = dict(parts["inputs"])
    for name in stage.warm_start:
        upstream, _, output = name.partition(".")
        digests[CHAMPION + name] = _artifact(store, champion, upstream).outputs[output]
    return {**parts, "inputs": dict(sorted(digests.items()))}


def paths(parts: Mapping[str, Any], store: Store) -> dict[str, Path]:
    """Paths of the outputs that a stage starts from, by their names in its key.

    They are found by their digests: the champion may have changed since.

    Raises:
        PipelineError: One of them no longer exists.
    """
    found = {}
    for name, digest in parts.get("inputs", {}).items():
        if not name.startswith(CHAMPION):
            continue
        stage, _, output = name.removeprefix(CHAMPION).partition(".")
        made = (m for m in store.recent(stage, limit=10_000) if m.outputs.get(output) == digest)
        whole = next((m for m in made if store.find(stage, m.key).manifest), None)
        path = store.entry(whole, output) if whole else None
        if path is None:
            raise PipelineError(
                f"{name} ({digest[:12]}), from which the training started, no longer exists",
                "Start from the base: --set train.start.adapter=base.",
            )
        found[name] = path
    return found


def _artifact(store: Store, champion: ChampionChange, stage: str) -> Manifest:
    key = champion.chain.get(stage, "")
    manifest = store.find(stage, key).manifest if key else None
    if manifest is None:
        made = " ".join(
            [f"--profile {champion.profile}", *(f"--set {o}" for o in champion.overrides)]
        )
        raise PipelineError(
            f"the training starts from the champion {champion.name}, whose artifact of stage "
            f"{stage} is incomplete",
            f"Produce it again (finetune run {made}), or start from the base: "
            "--set train.start.adapter=base.",
        )
    return manifest


def _bare(parts: Parts, stage: str) -> str:
    """The parts of a key without the start."""
    inputs = {n: d for n, d in parts["inputs"].items() if not n.startswith(CHAMPION)}
    config = {n: v for n, v in parts["config"].items() if n != f"{stage}.{FIELD}"}
    return canonical({**parts, "inputs": inputs, "config": config})


def _fixed(stage: Stage) -> list[str]:
    """Inputs that must equal the champion's: those of stages that are not in `warm_start`."""
    moving = {name.partition(".")[0] for name in stage.warm_start}
    return [name for name in stage.inputs if name.partition(".")[0] not in moving]
