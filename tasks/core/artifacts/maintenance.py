"""Store maintenance: verify artifacts, adopt an edit, accept a code change as harmless.

Every change is one rename or one manifest that is written atomically, so that a kill loses nothing.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.artifacts.garbage_collection import artifacts, discard, set_aside
from tasks.core.cache import manifest as manifests
from tasks.core.cache.causes import can_be_accepted
from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError


def verify(store: Store, deep: bool) -> Iterator[tuple[Path, tuple[str, str] | None]]:
    """Each artifact with its problem, or None.

    `deep` reads every byte. A file whose content changed without a change of size and time gets a
    new time, so that the next plan detects it as well.
    """
    for folder in artifacts(store.root):
        manifest = manifests.read(folder)
        if manifest is None or not manifests.is_true(manifest, folder):
            yield folder, ("unreadable", manifests.why_unreadable(folder))
            continue
        problem = manifests.damage(folder, manifest, store.digests, deep)
        if deep and problem and problem[0] == "edited":
            with suppress(OSError):
                os.utime(folder / problem[1])
        yield folder, problem
    for folder in set_aside(store.root):
        yield (
            folder,
            ("set aside", "edited by hand and replaced by a run; `finetune gc` removes it"),
        )


def adopt(store: Store, stage: str, key: str, outputs: tuple[str, ...]) -> Manifest:
    """Adopt an artifact that was edited by hand; stages that read a changed output run again.

    Raises:
        PipelineError: There is nothing to adopt.
    """
    folder = store.folder(stage, key)
    manifest = manifests.read(folder) if folder.is_dir() else None
    if manifest is None or manifest.key != key:
        raise PipelineError(
            f"stage {stage} has no artifact in {folder}", f"Run `finetune run --only {stage}`."
        )
    if (problem := store.find(stage, key).problem) is None:
        raise PipelineError(
            f"the artifact of stage {stage} was not edited", "Edit a file in it first."
        )
    files = manifests.describe_files(folder)
    digests = manifests.output_digests(outputs, files)
    if lost := sorted(set(manifest.outputs) - set(digests)):
        raise PipelineError(
            f"outputs of stage {stage} are missing: {', '.join(lost)}",
            "Restore them, or run the stage again.",
        )
    note = {"adopted": {"when": _now(), "because": " ".join(problem)}}
    adopted = dataclasses.replace(
        manifest, files=files, outputs=digests, made={**manifest.made, **note}
    )
    adopted.write(folder)
    return adopted


def accept(store: Store, plan: StagePlan) -> Manifest:
    """Publish the nearest artifact under the current key: the user declares a change harmless.

    Files are hard links. The manifest lists the accepted causes under `accepted`, after those that
    were accepted before.

    Raises:
        PipelineError: There is nothing to accept, or a cause is data or config.
    """
    stage = plan.stage.name
    if plan.decision == HIT:
        raise PipelineError(f"stage {stage} is up to date", "There is nothing to accept.")
    if plan.key is None or plan.manifest is None:
        why = "depends on stages that have to run first" if plan.manifest else "never ran"
        raise PipelineError(f"stage {stage} {why}", "Run or accept the stages before it first.")
    if not can_be_accepted([c for c in plan.causes if c.kind != "missing"]):
        kinds = ", ".join(sorted({cause.kind for cause in plan.causes}))
        raise PipelineError(
            f"stage {stage} runs because of {kinds}: {'; '.join(map(str, plan.causes))}",
            "Only changes of code and env can be accepted; run the stage.",
        )
    old = plan.manifest
    source = store.folder(stage, old.key)
    if manifests.damage(source, old, store.digests):
        raise PipelineError(f"the artifact in {source} is damaged", "Run the stage.")
    record = {"from": old.key, "when": _now(), "causes": [str(c) for c in plan.causes]}
    made = {**old.made, "accepted": [*old.made.get("accepted", ()), record]}
    accepted = dataclasses.replace(old, key=plan.key, parts=plan.parts, made=made)
    with store.working(stage, plan.key, lambda: None) as work:
        shutil.copytree(source, work.out, copy_function=os.link, dirs_exist_ok=True)
        (work.out / manifests.NAME).unlink()
        store.publish(accepted, work)
    return accepted


def undo_accept(store: Store, plan: StagePlan) -> None:
    """Remove an accepted artifact; the stage runs again.

    Raises:
        PipelineError: The current artifact was not accepted.
    """
    manifest = plan.manifest
    if plan.decision != HIT or manifest is None or "accepted" not in manifest.made:
        raise PipelineError(
            f"the artifact of stage {plan.stage.name} was not accepted", "There is nothing to undo."
        )
    discard(store.root, store.folder(plan.stage.name, manifest.key))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
