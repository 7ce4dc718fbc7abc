"""The ladder of isolation: how a bare interpreter is started under each level.

bubblewrap: own mount, network, process, IPC and host-name spaces; /usr and the interpreter
read-only, a small /tmp in memory, nothing else of the host; no capabilities, no environment.
unshare: the same spaces and the same small root, put together by util-linux's own tools where
bubblewrap is missing; costs twice as much.
rlimits: limits on memory, CPU time, processes and file size only; the program can read and write
what the user can.

Started by root, the program and its checker run as two unused user ids, so that limits on processes
hold and neither can reach the other; started by anyone else, both run in a user namespace.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUBBLEWRAP, UNSHARE, RLIMITS = "bubblewrap", "unshare", "rlimits"
LADDER = (BUBBLEWRAP, UNSHARE, RLIMITS)  # best first

TMP_MIB = 32
_FIRST_UID, _UIDS = 61184, 4336  # systemd's range for services without an account: nobody's ids
_DEVICES = ("null", "urandom")
_TOOLS = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the order of a set must not decide a verdict
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Identity:
    """User ids for one slot of the pool; 0: stay the present user."""

    program_uid: int
    checker_uid: int


def identity(level: str, slot: int) -> Identity:
    """Who program and checker run as; two ids of their own where root can give them."""
    if os.geteuid() != 0 or level == RLIMITS:
        # under rlimits alone the interpreter may lie where another user can't read it
        return Identity(0, 0)
    first = (os.getpid() * 64 + slot * 2) % (_UIDS - 1)
    return Identity(_FIRST_UID + first, _FIRST_UID + first + 1)


def interpreter() -> Path:
    """The bare interpreter behind a virtual environment."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Path(base).resolve()


def readable_folders() -> list[Path]:
    """What of the host a program may read: /usr and the interpreter's own bin and lib."""
    prefix = Path(sys.base_prefix).resolve()
    inside = [prefix / name for name in ("bin", "lib", "lib64")]
    inside.append(Path(sysconfig.get_paths()["stdlib"]).resolve())
    inside += [interpreter().parent, Path("/nix/store")]
    chosen = [Path("/usr")]
    for folder in inside:
        if folder.is_dir() and not any(folder.is_relative_to(known) for known in chosen):
            chosen.append(folder)
    return chosen


def _links() -> list[tuple[str, str]]:
    """(target, path) of the classic top-level folders that are links into /usr."""
    paths = [Path(p) for p in ("/bin", "/sbin", "/lib", "/lib32", "/lib64")]
    return [(str(p.readlink()), str(p)) for p in paths if p.is_symlink()]


def _plain_folders() -> list[Path]:
    """The same folders on systems that keep them apart from /usr."""
    paths = [Path(p) for p in ("/bin", "/sbin", "/lib", "/lib32", "/lib64")]
    return [p for p in paths if p.is_dir() and not p.is_symlink()]


def command(level: str, python: Sequence[str]) -> list[str]:
    """The whole command line that starts `python` under a level."""
    if level == BUBBLEWRAP:
        return [*_bubblewrap(), *python]
    if level == UNSHARE:
        return [*_unshare(), *python]
    return list(python)


def missing_tool(level: str) -> str | None:
    """The program that a level needs and this machine lacks; None: all there."""
    needed = {BUBBLEWRAP: ("bwrap",), UNSHARE: ("unshare", "setpriv", "mount", "pivot_root")}
    for tool in needed.get(level, ()):
        if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:{_TOOLS}") is None:
            return tool
    return None


def _tool(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_TOOLS}") or name


def _bubblewrap() -> list[str]:
    words = [_tool("bwrap"), "--die-with-parent", "--new-session", "--clearenv"]
    if os.geteuid() == 0:
        # a user namespace would map every id to root, whom limits on processes do not bind
        spaces = ("ipc", "pid", "net", "uts", "cgroup-try")
        words += [f"--unshare-{space}" for space in spaces]
        words += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-all", "--cap-drop", "ALL"]
    words += ["--hostname", "sandbox"]
    for folder in [*readable_folders(), *_plain_folders()]:
        for parent in reversed(
            folder.parents[:-1]
        ):  # made by itself, bwrap would close them to others
            words += ["--perms", "0755", "--dir", str(parent)]
        words += ["--ro-bind", str(folder), str(folder)]
    for target, path in _links():
        words += ["--symlink", target, path]
    words += ["--dir", "/dev"]
    for device in _DEVICES:
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    words += ["--perms", "1777", "--size", str(TMP_MIB << 20), "--tmpfs", "/tmp"]
    words += ["--remount-ro", "/", "--chdir", "/tmp"]
    for name, value in ENVIRONMENT.items():
        words += ["--setenv", name, value]
    return [*words, "--"]


def _unshare() -> list[str]:
    root = os.geteuid() == 0
    words = [_tool("unshare"), "--mount", "--net", "--pid", "--ipc", "--uts", "--fork"]
    words += ["--kill-child", "--propagation", "private"]
    words += [] if root else ["--user", "--map-root-user"]
    return [*words, "/bin/sh", "-ec", _build_root(keep="+setuid,+setgid" if root else ""), "sh"]


def _build_root(keep: str) -> str:
    """Shell text that builds the small root, moves into it, drops privileges and runs its words.

    The new root is laid over /sys of the private mount space: a folder that is always there and
    that nothing here needs.
    """
    q = shlex.quote
    folders = [*readable_folders(), *_plain_folders()]
    places = [q(f"/sys{folder}") for folder in folders]
    lines = [f"PATH={_TOOLS}", "cd /", f"mount -t tmpfs -o size={TMP_MIB}m,mode=755 sandbox /sys"]
    lines += [f"mkdir -p {' '.join(places)} /sys/dev /sys/tmp /sys/old /sys/proc"]
    for folder, place in zip(folders, places, strict=True):
        lines += [f"mount --bind {q(str(folder))} {place}"]
        lines += [f"mount -o remount,bind,ro,nosuid,nodev {place}"]
    lines += [f"ln -s {q(target)} {q('/sys' + path)}" for target, path in _links()]
    for device in _DEVICES:
        lines += [f": > /sys/dev/{device}", f"mount --bind /dev/{device} /sys/dev/{device}"]
    lines += [f"mount -t tmpfs -o size={TMP_MIB}m,mode=1777,nosuid,nodev sandbox /sys/tmp"]
    # umount looks its mounts up in /proc, so that goes last
    lines += [
        "mount --rbind /proc /sys/proc",
        "pivot_root /sys /sys/old",
        "cd /",
        "umount -l /old",
        "rmdir /old",
    ]
    lines += ["mount -o remount,bind,ro /", "umount -l /proc", "cd /tmp"]
    environment = " ".join(f"{name}={q(value)}" for name, value in ENVIRONMENT.items())
    drop = f"--bounding-set=-all{',' + keep if keep else ''} --inh-caps=-all --no-new-privs"
    return "\n".join([*lines, f'exec env -i {environment} setpriv {drop} "$@"'])
