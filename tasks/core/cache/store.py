"""Artifact store: artifacts/<stage>/<first 12 digits of the key>/, each published by one rename.

Anything below artifacts/ may be deleted at any time: the plan notices, and only what is missing
runs again.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

from tasks.core.cache import manifest as manifests
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.stage import Work
from tasks.core.system.atomic_write import flush, move_folder
from tasks.core.system.disk_space import is_full
from tasks.core.system.file_lock import is_locked, lock_if_free, locked

KEY_DIGITS = 12
MEMORY = ".memory"
TRASH = ".trash"
EDITED = ".edited-"  # before a number: the folder of an edited artifact that was replaced
REPLACED = ".replaced"  # after a dot and a key: an artifact while another takes its place
LOCKS, WHOLE = ".locks", "store"  # folder of the lock files; the lock of the whole store
LOGS, WORK = ".logs", ".work"


@dataclass(frozen=True)
class Found:
    """The result of a lookup.

    Attributes:
        manifest: The manifest of the artifact, if the artifact is complete.
        problem: ("missing" | "edited" | "unreadable", what), if the folder exists but cannot be
            used.
    """

    manifest: Manifest | None
    problem: tuple[str, str] | None = None


class Store:
    """Finds and publishes artifacts, and locks the work on them.

    Attributes:
        root: The artifacts folder; created when something is first written.
        digests: Caches the digests of files.
    """

    def __init__(self, root: Path, digests: DigestCache) -> None:
        self.root = root
        self.digests = digests

    def folder(self, stage: str, key: str) -> Path:
        """The folder of the artifact with this key, whether or not it exists."""
        return self.root / stage / key[:KEY_DIGITS]

    def lock(self, name: str) -> Path:
        """The lock file of the work folder of this name."""
        return self.root / LOCKS / name

    def find(self, stage: str, key: str, deep: bool = False) -> Found:
        """Find an artifact and check its files; `deep` hashes each of them."""
        folder = self.folder(stage, key)
        if not folder.is_dir():
            return Found(None)
        manifest = manifests.read(folder)
        if manifest is None or manifest.key != key or not manifests.is_true(manifest, folder):
            return Found(None, ("unreadable", manifests.why_unreadable(folder)))
        problem = manifests.damage(folder, manifest, self.digests, deep)
        return Found(None, problem) if problem else Found(manifest)

    def recent(self, stage: str, limit: int = 20) -> list[Manifest]:
        """Manifests of a stage, the last published first; their files are not checked."""
        return list(islice(self._newest_first(stage), limit))

    def with_output(self, stage: str, output: str, digest: str) -> Manifest | None:
        """The latest artifact of a stage with this output digest; its files are not checked."""
        found = (m for m in self._newest_first(stage) if m.outputs.get(output) == digest)
        return next(found, None)

    def _newest_first(self, stage: str) -> Iterator[Manifest]:
        times: dict[str, int] = {}
        with suppress(OSError):
            for entry in os.scandir(self.root / stage):
                if len(entry.name) == KEY_DIGITS:
                    with suppress(FileNotFoundError):  # it is being collected
                        times[entry.path] = entry.stat().st_mtime_ns
        for path in sorted(times, key=times.__getitem__, reverse=True):
            if manifest := manifests.read(Path(path)):
                yield manifest

    def entry(self, manifest: Manifest, name: str) -> Path | None:
        """Path of the output or extra file `name` in an artifact, if it has one."""
        tops = {
            path.partition("/")[0] for path in manifest.files if manifests.entry_name(path) == name
        }
        return self.folder(manifest.stage, manifest.key) / min(tops) if tops else None

    @contextmanager
    def working(self, stage: str, key: str, waiting: Callable[[], None]) -> Iterator[Work]:
        """Hold the lock of a key and yield its work folder.

        `scratch` contains what an interrupted run of the same key left; `out` is empty unless that
        run had finished it (see `finished`). `waiting` is called once if another process holds the
        lock.
        """
        base = self.root / WORK / f"{stage}-{key[:KEY_DIGITS]}"
        self._check_writable()
        self._check_stage_folder(stage)
        with locked(self.lock(f"{stage}-{key[:KEY_DIGITS]}"), waiting):
            work = Work(base / "out", base / "scratch", memory=self.root / MEMORY / stage)
            if manifests.read(work.out) is None:
                shutil.rmtree(work.out, ignore_errors=True)
            work.out.mkdir(parents=True, exist_ok=True)
            work.scratch.mkdir(parents=True, exist_ok=True)
            yield work

    def _check_writable(self) -> None:
        try:
            (self.root / LOCKS).mkdir(parents=True, exist_ok=True)
            os.utime(self.root / LOCKS)
        except OSError as error:
            raise PipelineError(
                f"the artifacts folder {self.root} can't be written: {error.strerror}",
                "Make it writable, or set FINETUNE_HOME to a folder that is.",
            ) from error

    def _check_stage_folder(self, stage: str) -> None:
        """Reject a folder that can't take the artifact before the stage runs for hours."""
        folder = self.root / stage
        try:
            folder.mkdir(exist_ok=True)
            TemporaryFile(dir=folder).close()
        except OSError as error:
            if is_full(error):  # reported by what needs the space
                return
            reason = error.strerror
            if folder.is_symlink() and not folder.is_dir():
                reason = f"it is a link to {folder.readlink()}, where there is no folder"
            elif folder.is_file():
                reason = "it is a file"
            raise PipelineError(
                f"the folder {folder} of stage {stage} can't be written: {reason}",
                "Make it a folder that can be written, or a link to one; or remove it.",
            ) from error

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The shared lock of a run: nothing that it uses is collected meanwhile."""
        self._check_writable()
        say_waiting = partial(say, "garbage collection is in progress; waiting for it to end")
        with locked(self.root / LOCKS / WHOLE, say_waiting, shared=True):
            yield

    @contextmanager
    def alone(self, waiting: Callable[[], None]) -> Iterator[None]:
        """The exclusive lock of garbage collection: no run is in progress."""
        self._check_writable()
        with locked(self.root / LOCKS / WHOLE, waiting):
            yield

    def sweep(self) -> None:
        """Clean up after killed processes: publish work that was complete, remove work folders
        without a checkpoint and what was being deleted or replaced.

        Work that can't be published, such as on a full disk, stays: the run of its stage publishes
        it, or says why it can't.
        """
        for discarded in (self.root / TRASH).glob("*"):
            shutil.rmtree(discarded, ignore_errors=True)
        for folder in (self.root / WORK).glob("*"):
            with lock_if_free(self.lock(folder.name)) as free:
                if not free:
                    continue
                work = Work(folder / "out", folder / "scratch")
                manifest = self.finished(work)
                if manifest and not manifests.damage(work.out, manifest, self.digests):
                    with suppress(OSError):
                        self.publish(manifest, work)
                elif not any(work.scratch.glob("*")):
                    shutil.rmtree(folder, ignore_errors=True)
        for left in (*self.root.glob(f"[!.]*/.*{REPLACED}"), *self.root.glob("[!.]*/.*.part")):
            name = f"{left.parent.name}-{left.name.split('.')[1]}"
            if not is_locked(self.lock(name)):
                shutil.rmtree(left, ignore_errors=True)
        for log in (self.root / LOGS).glob("*.log"):
            stage, _, key = log.stem.rpartition("-")
            if self.folder(stage, key).is_dir() and not is_locked(self.lock(log.stem)):
                log.unlink(missing_ok=True)  # the artifact contains a copy

    def finished(self, work: Work) -> Manifest | None:
        """The manifest of work that was killed between its last write and the rename."""
        return manifests.read(work.out)

    def publish(self, manifest: Manifest, work: Work) -> None:
        """Move finished work to its final folder; the caller holds the lock of the key.

        An existing artifact is replaced; one that was edited by hand is kept next to the new one,
        so that no edit is lost.
        """
        if manifests.read(work.out) is None:
            manifest.write(work.out)
        target = self.folder(manifest.stage, manifest.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        replaced = target.with_name(f".{target.name}{REPLACED}")
        shutil.rmtree(replaced, ignore_errors=True)  # of a run that was killed
        if target.exists():
            found = self.find(manifest.stage, manifest.key)
            adopted = found.manifest is not None and "adopted" in found.manifest.made
            keep = adopted or (found.problem or ("",))[0] in ("edited", "unreadable")
            target.rename(_free_name(target) if keep else replaced)
        move_folder(work.out, target)
        flush(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        shutil.rmtree(work.out.parent, ignore_errors=True)


def _free_name(path: Path) -> Path:
    """`path` with the first unused suffix ".edited-N"."""
    n = 1
    while (candidate := path.with_name(f"{path.name}{EDITED}{n}")).exists():
        n += 1
    return candidate
