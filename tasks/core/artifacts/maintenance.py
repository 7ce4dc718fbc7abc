"""Looking after the store: verify, adopt an edit, accept a change as harmless.

Every change is one rename or one manifest written whole, so that a kill half-way loses nothing.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.artifacts.garbage_collection import artifacts, discard
from tasks.core.cache import manifest as manifests
from tasks.core.cache.causes import is_opinion
from tasks.core.cache.decision import HIT, StagePlan
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError


def verify(store: Store, deep: bool) -> Iterator[tuple[Path, tuple[str, str] | None]]:
    """Each artifact with what is wrong with it, or None.

    `deep` reads every byte. A file in which it finds what its size and time do not show gets
    another time, so that the next plan sees it, too.
    """
    for folder in artifacts(store.root):
        manifest = manifests.read(folder)
        if manifest is None or not manifests.is_true(manifest, folder):
            yield folder, ("unreadable", manifests.why_unreadable(folder))
            continue
        problem = manifests.damage(folder, manifest, store.memo, deep)
        if deep and problem and problem[0] == "edited":
            with suppress(OSError):
                os.utime(folder / problem[1])
        yield folder, problem


def adopt(store: Store, stage: str, key: str, outputs: tuple[str, ...]) -> Manifest:
    """Take an artifact that was edited by hand as it is now; what rests on a changed output will
    run again.

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
            f"the artifact of stage {stage} is as it was made", "Edit a file in it first."
        )
    files = manifests.describe_files(folder)
    digests = manifests.output_digests(outputs, files)
    if lost := sorted(set(manifest.outputs) - set(digests)):
        raise PipelineError(
            f"outputs of stage {stage} are gone: {', '.join(lost)}",
            "Put them back, or run it again.",
        )
    note = {"adopted": {"when": _now(), "because": " ".join(problem)}}
    adopted = dataclasses.replace(
        manifest, files=files, outputs=digests, made={**manifest.made, **note}
    )
    adopted.write(folder)
    return adopted


def accept(store: Store, plan: StagePlan) -> Manifest:
    """Publish the nearest artifact under the key of now: its maker says that the change is
    harmless.

    Files are hard-linked. Recorded in the manifest as `accepted`, with the causes that were waved
    through, behind what was accepted before.

    Raises:
        PipelineError: Nothing to accept, or a cause that isn't a matter of opinion (data, config).
    """
    stage = plan.stage.name
    if plan.decision == HIT:
        raise PipelineError(f"stage {stage} is up to date", "There is nothing to accept.")
    if plan.key is None or plan.manifest is None:
        why = "rests on stages that run first" if plan.manifest else "never ran"
        raise PipelineError(f"stage {stage} {why}", "Run or accept the stages before it first.")
    if not is_opinion([c for c in plan.causes if c.kind != "missing"]):
        kinds = ", ".join(sorted({cause.kind for cause in plan.causes}))
        raise PipelineError(
            f"stage {stage} runs for {kinds}: {'; '.join(map(str, plan.causes))}",
            "Only changes of code and env can be accepted; run the stage.",
        )
    old = plan.manifest
    source = store.folder(stage, old.key)
    if manifests.damage(source, old, store.memo):
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
    """Remove an accepted artifact; the stage will run again.

    Raises:
        PipelineError: The artifact of now was made, not accepted.
    """
    manifest = plan.manifest
    if plan.decision != HIT or manifest is None or "accepted" not in manifest.made:
        raise PipelineError(
            f"the artifact of stage {plan.stage.name} was not accepted", "There is nothing to undo."
        )
    discard(store.root, store.folder(plan.stage.name, manifest.key))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
