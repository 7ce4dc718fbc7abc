"""Control groups (cgroup v2): limits on the memory and the processes of a whole sandbox.

Limits on processes (`confinement`) apply to each process, and what all of them hold is only
measured now and then. In a group of its own, the kernel counts every page of a sandbox, files in
memory and buffers of pipes included, and every process and thread.

Groups can be created where this process's own group may be divided: in a unit that systemd has
delegated (`Delegate=yes`), and where the controllers are on already, as for root outside of
systemd. A group with controllers for its children must hold no process itself, so the processes of
a delegated unit move into one child; those of any other group are left alone.
"""

import contextlib
import errno
import itertools
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
CONTROLLERS = {"memory", "pids"}
_LEAF = "finetune"  # for the processes of a group that is divided
_PREFIX = "sandbox-"
_NOT_OURS = (
    "this process's cgroup is not delegated; `systemd-run --user --scope -p Delegate=yes COMMAND` "
    "starts a command in one that is"
)
_OTHERS = 8  # processes that start a sandbox: bwrap, unshare, shells
_TRIES = 100
_numbers = itertools.count()


@dataclass(frozen=True)
class Group:
    """The group of one sandbox."""

    folder: Path

    def start(self, argv: Sequence[str]) -> list[str]:
        """A command line that enters the group, then is `argv`: nothing starts outside of it."""
        script = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
        return ["/bin/sh", "-c", script, str(self.folder), *argv]

    def exceeded(self) -> bool:
        """Whether the kernel killed its processes because they reached the group's own limit."""
        try:
            lines = (self.folder / "memory.events").read_text().splitlines()
        except OSError:
            return False
        events = {name: int(count) for name, count in map(str.split, lines)}
        return bool(events.get("oom") and events.get("oom_kill"))


@lru_cache(maxsize=1)
def usable() -> tuple[Path | None, str]:
    """The group in which those of sandboxes are created, or None and why there is none."""
    try:
        parent = divided(ROOT, OWN)
        _remove_old(parent)
        with group(parent, memory_mib=64, processes=1) as tried:
            subprocess.run(tried.start(["/bin/true"]), check=True, capture_output=True)
    except OSError as error:
        return None, error.strerror or str(error)
    except subprocess.CalledProcessError as error:
        return None, error.stderr.decode("utf-8", "replace").strip()
    return parent, ""


def divided(root: Path, own: Path) -> Path:
    """This process's group, with the controllers switched on for its children.

    Args:
        root: Where cgroup v2 is mounted.
        own: File with this process's groups.

    Raises:
        OSError: The group may not be divided.
    """
    if not (root / "cgroup.controllers").is_file():
        raise OSError(errno.ENOTSUP, f"no cgroup v2 in {root}")
    lines = own.read_text().splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = root / path
    if folder.name == _LEAF:  # an earlier process of the unit has divided it
        folder = folder.parent
    if missing := CONTROLLERS - _words(folder / "cgroup.controllers"):
        raise OSError(errno.ENOTSUP, f"the cgroup has no controller {', '.join(sorted(missing))}")
    for _ in range(_TRIES):  # a process may start in the group while others are moved
        if _words(folder / "cgroup.subtree_control") >= CONTROLLERS:
            break
        delegated = _is_delegated(folder)
        if delegated:
            _move_processes(folder)
        try:
            (folder / "cgroup.subtree_control").write_text("+memory +pids")
            break
        except OSError as error:
            if not delegated:
                raise OSError(error.errno, _NOT_OURS) from None
            if error.errno != errno.EBUSY:
                raise
    return folder


@contextlib.contextmanager
def group(parent: Path, memory_mib: int, processes: int) -> Iterator[Group]:
    """A new group with limits, removed with all its processes at the end.

    Args:
        parent: Of `usable`.
        memory_mib: Of all processes together; they get no swap space.
        processes: Besides those of bubblewrap or unshare; threads count.

    Raises:
        OSError: The group can't be created.
    """
    folder = parent / f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    try:
        (folder / "memory.max").write_text(str(memory_mib << 20))
        # all or nothing: a checker without its program, or the other way round, decides nothing
        (folder / "memory.oom.group").write_text("1")
        (folder / "pids.max").write_text(str(processes + _OTHERS))
        with contextlib.suppress(OSError):  # a kernel without swap accounting
            (folder / "memory.swap.max").write_text("0")
        yield Group(folder)
    finally:
        with contextlib.suppress(OSError):  # before Linux 5.14
            (folder / "cgroup.kill").write_text("1")
        _remove(folder)


def _words(file: Path) -> set[str]:
    return set(file.read_text().split())


def _is_delegated(folder: Path) -> bool:
    """Whether systemd has marked a group as one that its processes may divide."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def _move_processes(folder: Path) -> None:
    leaf = folder / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in (folder / "cgroup.procs").read_text().split():
        try:
            (leaf / "cgroup.procs").write_text(pid)
        except OSError as error:
            if error.errno != errno.ESRCH:  # it has ended
                raise


def _remove(folder: Path) -> None:
    """Remove a group; processes that were killed take a moment to leave it."""
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.01)


def _remove_old(parent: Path) -> None:
    """Remove the groups of sandboxes whose pipeline was killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
