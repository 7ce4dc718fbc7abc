"""Garbage collection: removes artifacts that no recent run, pinned run or champion uses.

An artifact disappears by one rename, so that a kill leaves no incomplete artifact.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from tasks.core.artifacts import runs
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache import manifest as manifests
from tasks.core.cache.store import (
    EDITED,
    KEY_DIGITS,
    LOCKS,
    LOGS,
    MEMORY,
    TRASH,
    WORK,
    Store,
)
from tasks.core.rows import row_cache_folders
from tasks.core.stage import CHAMPION
from tasks.core.system.file_lock import is_locked

CHAMPION_LINK = "champion"
Name = tuple[str, str]  # stage and folder of an artifact


def artifacts(root: Path) -> Iterator[Path]:
    """Folders of all artifacts below `root`, complete or not, by stage and key."""
    # a stage folder may be a link to another disk; the champion is a link to an artifact
    folders = (p for p in root.glob("*") if p.is_dir() and p.name != CHAMPION_LINK)
    for stage in sorted(p for p in folders if not p.name.startswith(".")):
        yield from sorted(p for p in stage.iterdir() if p.is_dir() and len(p.name) == KEY_DIGITS)


def set_aside(root: Path) -> Iterator[Path]:
    """Folders of edited artifacts that a run has replaced, `<key>.edited-N`."""
    yield from sorted(root.glob(f"[!.]*/*{EDITED}*"))


@dataclass(frozen=True)
class Garbage:
    """What a collection would remove.

    Attributes:
        folders: Artifacts that no kept run uses.
        unfinished: Work folders of killed runs that are not kept.
        leftovers: Cached values of rows that no recent run used, files about artifacts that no
            longer exist, and what an interrupted collection left.
        freed_bytes: Size on disk; files that a kept artifact shares are not counted.
        remake_seconds: What producing the artifacts again would cost, by their manifests.
    """

    folders: tuple[Path, ...]
    unfinished: tuple[Path, ...]
    leftovers: tuple[Path, ...]
    freed_bytes: int
    remake_seconds: float


def find_garbage(store: Store, keep_last: int, keep_days: float, pinned: frozenset[str]) -> Garbage:
    """Everything that can be removed.

    Args:
        store: The store.
        keep_last: Number of finished runs to keep, with all runs since; their artifacts, what those
            were produced from, and unfinished work are kept.
        keep_days: Also keep the runs of this many days.
        pinned: Keys that are always kept.
    """
    root = store.root
    records = list(_kept_runs(root, keep_last, keep_days))
    names = {(stage, key[:KEY_DIGITS]) for r in records for stage, key in r.keys.items()}
    pinned_names = {key[:KEY_DIGITS] for key in pinned}
    found = {(folder.parent.name, folder.name): folder for folder in artifacts(root)}
    names |= {name for name in found if name[1] in pinned_names}
    names |= _accepted_from(found, names)
    kept = names | _used_by(store, found, names)
    folders = [folder for name, folder in found.items() if name not in kept]
    costs = (manifests.read(folder) for folder in folders)
    alive = {record.making for record in records} | {"-".join(name) for name in kept}
    unfinished = [
        work
        for work in sorted((root / WORK).glob("*"))
        if work.name not in alive and not is_locked(store.lock(work.name))
    ]
    leftovers = [*(root / TRASH).glob("*"), *(root / runs.FOLDER).glob("*.tmp")]
    for stage_shards in (root / row_cache_folders.ROOT).glob("*"):
        leftovers.extend(row_cache_folders.old_folders(stage_shards, keep=1))
    leftovers += _side_files(root, alive)
    leftovers += [f for f in set_aside(root) if (f.parent.name, f.name[:KEY_DIGITS]) not in kept]
    leftovers += _orphaned_caches(
        root, {name: folder for name, folder in found.items() if name in kept}
    )
    size = sum(_freed_bytes(p) for p in (*folders, *unfinished, *leftovers))
    seconds = sum(manifest.seconds for manifest in costs if manifest)
    return Garbage(tuple(folders), tuple(unfinished), tuple(leftovers), size, seconds)


def _kept_runs(root: Path, keep_last: int, keep_days: float) -> Iterator[RunRecord]:
    """The last runs, those of the last days, and the pinned ones.

    Unfinished runs are not counted: three that failed early would displace the last good one.
    """
    always = {*runs.since(root, keep_days), *runs.pinned(root)}
    ended = 0
    for name in reversed(runs.ids(root)):
        if ended < keep_last or name in always:
            record = runs.load(root, name)
            ended += record.ended
            yield record


def _side_files(root: Path, alive: Set[str]) -> list[Path]:
    """Logs, locks and Prefect's results of artifacts that are neither kept nor in progress."""
    patterns = (f"{LOGS}/*-*.log", f"{LOCKS}/*-*", ".prefect/*")
    return [
        path
        for pattern in patterns
        for path in sorted(root.glob(pattern))
        if _name_of(path.name) not in alive and not (path.parent.name == LOCKS and is_locked(path))
    ]


def _name_of(file: str) -> str:
    """ "train-0123456789ab", the artifact in the name of a file."""
    stage, _, key = file.partition(".")[0].rpartition("-")
    return f"{stage}-{key[:KEY_DIGITS]}"


def _orphaned_caches(root: Path, kept: Mapping[Name, Path]) -> list[Path]:
    """Cached completions about outputs that no kept artifact contains."""
    read = (manifests.read(folder) for folder in kept.values())
    held = {digest[:KEY_DIGITS] for m in read if m for digest in m.outputs.values()}
    files = sorted((root / MEMORY).glob("*/*"))
    return [path for path in files if path.name[:KEY_DIGITS] not in held]


def _accepted_from(found: Mapping[Name, Path], kept: Set[Name]) -> set[Name]:
    """Accepted artifacts that stand for a kept one: no run has used them yet."""
    sources: dict[Name, set[Name]] = {}
    for (stage, folder), path in found.items():
        manifest = manifests.read(path)
        for record in manifest.made.get("accepted", ()) if manifest else ():
            sources.setdefault((stage, str(record["from"])[:KEY_DIGITS]), set()).add(
                (stage, folder)
            )
    more: set[Name] = set()
    waiting = list(kept)
    while waiting:
        new = sources.get(waiting.pop(), set()) - more - kept
        more |= new
        waiting += new
    return more


def _used_by(store: Store, found: Mapping[Name, Path], kept: Set[Name]) -> set[Name]:
    """The artifacts from which the kept ones were produced, transitively.

    An input is identified by its digest. If several artifacts contain it, one that is kept anyway
    suffices; else one complete artifact is kept.
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
            if len(candidates) > 1:
                whole = [n for n in candidates if store.find(stage, read[n].key).manifest]
                candidates = whole or candidates
            if candidates and not any(name in kept or name in more for name in candidates):
                more.add(candidates[-1])
                waiting.append(candidates[-1])
    return more


def collect(root: Path, garbage: Garbage) -> None:
    """Remove garbage."""
    for path in garbage.folders:
        discard(root, path)
    for path in (*garbage.unfinished, *garbage.leftovers):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def discard(root: Path, folder: Path) -> None:
    """Remove an artifact: one rename, then its files.

    On another disk, which a stage folder may be a link to, its manifest is removed first: what a
    kill leaves is no artifact, and garbage for the next collection.
    """
    trash = root / TRASH / f"{folder.parent.name}-{folder.name}-{os.getpid()}"
    trash.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(trash)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        (folder / manifests.NAME).unlink(missing_ok=True)
        trash = folder
    shutil.rmtree(trash, ignore_errors=True)  # the next run removes what is left


def _freed_bytes(folder: Path) -> int:
    paths = folder.rglob("*") if folder.is_dir() else [folder]
    stats = (path.lstat() for path in paths if not path.is_dir())
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)
