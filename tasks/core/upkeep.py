"""Looking after the store: verify, adopt an edit, accept a change as harmless, collect garbage.

Every change is one rename or one manifest written whole, so that a kill half-way loses nothing.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.core import manifest as manifests
from tasks.core import runs, shard_folders
from tasks.core.errors import PipelineError
from tasks.core.manifest import Manifest
from tasks.core.memo import Memo
from tasks.core.plan import HIT, StagePlan
from tasks.core.stage import CHAMPION
from tasks.core.store import KEY_DIGITS, MEMORY, TRASH, Store, is_locked

Name = tuple[str, str]  # stage and folder of an artifact


def artifacts(root: Path) -> Iterator[Path]:
    """Folders of all artifacts below `root`, whole or not, by stage and key."""
    folders = (p for p in root.glob("*") if p.is_dir() and not p.is_symlink())  # link: champion
    for stage in sorted(p for p in folders if not p.name.startswith(".")):
        yield from sorted(p for p in stage.iterdir() if p.is_dir() and len(p.name) == KEY_DIGITS)


def verify(root: Path, memo: Memo, deep: bool) -> Iterator[tuple[Path, tuple[str, str] | None]]:
    """Each artifact with what is wrong with it, or None; `deep` reads every byte."""
    for folder in artifacts(root):
        manifest = manifests.read(folder)
        if manifest is None:
            yield folder, ("unreadable", manifests.NAME)
        else:
            yield folder, manifests.damage(folder, manifest.files, memo, deep)


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
    through.

    Raises:
        PipelineError: Nothing to accept, or a cause that isn't a matter of opinion (data, config).
    """
    stage = plan.stage.name
    if plan.verdict == HIT:
        raise PipelineError(f"stage {stage} is up to date", "There is nothing to accept.")
    if plan.key is None or plan.manifest is None:
        why = "rests on stages that run first" if plan.manifest else "never ran"
        raise PipelineError(f"stage {stage} {why}", "Run or accept the stages before it first.")
    refused = sorted({c.kind for c in plan.causes} - {"code", "env"})
    if refused:
        raise PipelineError(
            f"stage {stage} runs for {', '.join(refused)}: {'; '.join(map(str, plan.causes))}",
            "Only changes of code and env can be accepted; run the stage.",
        )
    old = plan.manifest
    source = store.folder(stage, old.key)
    if manifests.damage(source, old.files, Memo(None)):
        raise PipelineError(f"the artifact in {source} is damaged", "Run the stage.")
    record = {"from": old.key, "when": _now(), "causes": [str(c) for c in plan.causes]}
    accepted = dataclasses.replace(
        old, key=plan.key, parts=plan.parts, made={**old.made, "accepted": record}
    )
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
    if plan.verdict != HIT or manifest is None or "accepted" not in manifest.made:
        raise PipelineError(
            f"the artifact of stage {plan.stage.name} was not accepted", "There is nothing to undo."
        )
    _discard(store.root, store.folder(plan.stage.name, manifest.key))


@dataclass(frozen=True)
class Garbage:
    """What a collection would remove.

    Attributes:
        folders: Artifacts that no kept run rests on.
        leftovers: Work folders of dead runs, values of rows that no recent run used, and what an
            interrupted collection left.
        freed_bytes: Size on disk; files that a kept artifact shares are not counted.
        remake_seconds: What making the artifacts again would cost, by their own manifests.
    """

    folders: tuple[Path, ...]
    leftovers: tuple[Path, ...]
    freed_bytes: int
    remake_seconds: float


def find_garbage(root: Path, keep_last: int, keep_days: float, pinned: frozenset[str]) -> Garbage:
    """Everything that may go.

    Args:
        root: The artifacts folder.
        keep_last: So many of the last runs are kept with all they rest on.
        keep_days: And all runs of the last so many days.
        pinned: Keys to keep in any case.
    """
    kept_runs = {*(runs.ids(root)[-keep_last:] if keep_last else []), *runs.since(root, keep_days)}
    records = [runs.read(root, run) for run in kept_runs]
    names = {(stage, key[:KEY_DIGITS]) for r in records for stage, key in r.keys.items()}
    pinned_names = {key[:KEY_DIGITS] for key in pinned}
    found = {(folder.parent.name, folder.name): folder for folder in artifacts(root)}
    names |= {name for name in found if name[1] in pinned_names}
    kept = names | _rested_on(found, names)
    folders = [folder for name, folder in found.items() if name not in kept]
    costs = (manifests.read(folder) for folder in folders)
    leftovers = [*(root / TRASH).glob("*"), *(root / runs.FOLDER).glob("*.tmp")]
    for stage_shards in (root / shard_folders.ROOT).glob("*"):
        leftovers.extend(shard_folders.old_folders(stage_shards, keep=1))
    for work in (root / ".work").glob("*"):
        stage, _, name = work.name.rpartition("-")
        if (stage, name) not in kept and not is_locked(root / ".locks" / work.name):
            leftovers.append(work)
    leftovers += _forgotten(root, {name: folder for name, folder in found.items() if name in kept})
    size = sum(_freed_bytes(p) for p in (*folders, *leftovers))
    seconds = sum(manifest.seconds for manifest in costs if manifest)
    return Garbage(tuple(folders), tuple(leftovers), size, seconds)


def _forgotten(root: Path, kept: Mapping[Name, Path]) -> list[Path]:
    """Memories about outputs that no kept artifact holds."""
    read = (manifests.read(folder) for folder in kept.values())
    held = {digest[:KEY_DIGITS] for m in read if m for digest in m.outputs.values()}
    files = sorted((root / MEMORY).glob("*/*"))
    return [path for path in files if path.name[:KEY_DIGITS] not in held]


def _rested_on(found: Mapping[Name, Path], kept: Set[Name]) -> set[Name]:
    """The artifacts that the kept ones were made from, and those that these were made from.

    An input is known by its digest: where several artifacts hold it, one that is kept anyway will
    do, else one of them is.
    """
    read = {name: m for name, folder in found.items() if (m := manifests.read(folder))}
    holders: dict[tuple[str, str, str], list[Name]] = {}
    for name, manifest in read.items():
        for output, digest in manifest.outputs.items():
            holders.setdefault((manifest.stage, output, digest), []).append(name)
    more: set[Name] = set()
    waiting = [name for name in kept if name in read]
    while waiting:
        for label, digest in read[waiting.pop()].parts.get("inputs", {}).items():
            stage, _, output = label.removeprefix(CHAMPION).partition(".")
            candidates = holders.get((stage, output, digest), [])
            if candidates and not any(name in kept or name in more for name in candidates):
                more.add(candidates[-1])
                waiting.append(candidates[-1])
    return more


def collect(root: Path, garbage: Garbage) -> None:
    """Remove garbage; each artifact disappears by one rename, so a kill leaves no half one."""
    for path in garbage.folders:
        _discard(root, path)
    for path in garbage.leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _discard(root: Path, folder: Path) -> None:
    trash = root / TRASH / f"{folder.parent.name}-{folder.name}-{os.getpid()}"
    trash.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)  # a run that starts sweeps what is left of it


def _freed_bytes(folder: Path) -> int:
    paths = folder.rglob("*") if folder.is_dir() else [folder]
    stats = (path.lstat() for path in paths if not path.is_dir())
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
