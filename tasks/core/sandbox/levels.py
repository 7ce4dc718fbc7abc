"""Isolation levels: the command line that starts a bare interpreter under each of them.

- bubblewrap: own mount, network, process, IPC and host-name namespaces. Of the host's files, only
  /usr and the interpreter are visible, read-only; /tmp is small and in memory. No capabilities, no
  environment.
- unshare: the same namespaces and the same root, built with util-linux's tools where bubblewrap is
  missing; takes twice as long.
- rlimits: limits on memory, CPU time, processes and file size only. The program can read and write
  what the user can.

As root, the program and its checker run as two unused user ids, so that limits on processes apply
(root is exempt from them) and neither can signal or trace the other. As any other user, both run in
a user namespace, as one user.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BUBBLEWRAP, UNSHARE, RLIMITS = "bubblewrap", "unshare", "rlimits"
LADDER = (BUBBLEWRAP, UNSHARE, RLIMITS)  # strongest first

TMP_MIB, TMP_FILES = 32, 4096
PACKAGES = Path("/packages")  # where the packages that a job names appear
_FIRST_UID, _UIDS = 61184, 4336  # systemd's range for services without an account: no user's ids
_DEVICES = ("null", "urandom")
_EXECUTABLE = "/proc/self/exe"
_TOOLS = "/usr/sbin:/usr/bin:/sbin:/bin"
_TOP_FOLDERS = [Path(name) for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64")]
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # else the order of a set could decide an outcome
    "PYTHONDONTWRITEBYTECODE": "1",
    # numpy starts a thread with its own memory for each core
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Identity:
    """User ids for one slot of the pool; 0: keep the present user."""

    program_uid: int
    checker_uid: int


def identity(level: str, slot: int) -> Identity:
    """Users of program and checker: two unused ids where root can assign them."""
    if os.geteuid() != 0 or level == RLIMITS:
        # without its own root, the interpreter may be in a folder that another user can't read
        return Identity(0, 0)
    # pipelines that run at the same time should not share ids: start at one chosen by the process
    first = (os.getpid() * 64 + slot * 2) % (_UIDS - 1)
    return Identity(_FIRST_UID + first, _FIRST_UID + first + 1)


def interpreter() -> Path:
    """The interpreter that a virtual environment is based on, without its packages."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def _readable_folders() -> list[Path]:
    """Folders of the host that a program may read: /usr, the interpreter's bin and lib, and /bin,
    /lib ... on systems where these are not links into /usr."""
    prefix = Path(sys.base_prefix).resolve()
    needed = [prefix / name for name in ("bin", "lib", "lib64")]
    needed.append(Path(sysconfig.get_paths()["stdlib"]).resolve())
    needed += [interpreter().parent, Path("/nix/store")]
    chosen = [Path("/usr")]
    for folder in needed:
        if folder.is_dir() and not any(folder.is_relative_to(known) for known in chosen):
            chosen.append(folder)
    return chosen + [p for p in _TOP_FOLDERS if p.is_dir() and not p.is_symlink()]


def _links() -> list[tuple[str, str]]:
    """(target, path) of the top-level folders that are links into /usr."""
    return [(str(p.readlink()), str(p)) for p in _TOP_FOLDERS if p.is_symlink()]


def command(
    level: str,
    python: Sequence[str],
    packages: Mapping[str, Path] = {},
    executable: str = "",
    folders: Sequence[str] = (),
) -> list[str]:
    """The whole command line that starts `python` under a level.

    Args:
        level: Of `LADDER`.
        python: The interpreter and its arguments.
        packages: Files and folders of the host that appear in `PACKAGES` under these names.
        executable: What the link /proc/self/exe names, without which compilers do not find their
            files; "": there is no /proc.
        folders: Of the host, outside of /usr, that appear under the same path.
    """
    if level == RLIMITS:
        return list(python)
    shown = {PACKAGES / name: path for name, path in packages.items()}
    shown |= {Path(folder): Path(folder) for folder in folders}
    build = _bubblewrap if level == BUBBLEWRAP else _unshare
    return [*build(shown, executable), *python]


def package_paths(level: str, packages: Mapping[str, Path]) -> list[str]:
    """What to add to the import path for the packages of `command`."""
    if level == RLIMITS:
        return sorted({str(path.parent) for path in packages.values()})
    return [str(PACKAGES)]


def missing_tool(level: str) -> str | None:
    """A program that a level needs and this machine lacks; None if all are there."""
    needed = {BUBBLEWRAP: ("bwrap",), UNSHARE: ("unshare", "setpriv", "mount", "pivot_root")}
    return next((tool for tool in needed.get(level, ()) if _which(tool) is None), None)


def _which(tool: str) -> str | None:
    # a user's PATH often lacks the sbin folders
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:{_TOOLS}")


def _bubblewrap(shown: Mapping[Path, Path], executable: str) -> list[str]:
    argv = [_which("bwrap") or "bwrap"]
    # --new-session: without it a program could type into the user's terminal (TIOCSTI)
    argv += ["--die-with-parent", "--new-session", "--clearenv"]
    if os.geteuid() == 0:
        # a user namespace would map every id to root, to whom limits on processes do not apply
        namespaces = ("ipc", "pid", "net", "uts", "cgroup-try")
        argv += [f"--unshare-{name}" for name in namespaces]
        # `inside` changes to the two user ids, which drops these two capabilities, too
        argv += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        argv += ["--unshare-all", "--cap-drop", "ALL"]
    # `confinement` bounds the number of files in /tmp, and drops this one before it starts anything
    argv += ["--cap-add", "CAP_SYS_ADMIN"]
    argv += ["--hostname", "sandbox"]
    for folder in _readable_folders():
        # bwrap creates missing parents closed to other users, such as the program's
        for parent in reversed(folder.parents[:-1]):
            argv += ["--perms", "0755", "--dir", str(parent)]
        argv += ["--ro-bind", str(folder), str(folder)]
    for target, path in _links():
        argv += ["--symlink", target, path]
    for place, source in shown.items():
        for parent in reversed(place.parents[:-1]):
            argv += ["--perms", "0755", "--dir", str(parent)]
        argv += ["--ro-bind", str(source), str(place)]
    for name in ("/proc", "/proc/self") if executable else ():
        argv += ["--perms", "0755", "--dir", name]
    argv += ["--symlink", executable, _EXECUTABLE] if executable else []
    argv += ["--dir", "/dev"]
    for device in _DEVICES:
        argv += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    argv += ["--perms", "1777", "--size", str(TMP_MIB << 20), "--tmpfs", "/tmp"]
    # /proc is not mounted: it shows other processes and the kernel's settings
    argv += ["--remount-ro", "/", "--chdir", "/tmp"]
    for name, value in ENVIRONMENT.items():
        argv += ["--setenv", name, value]
    return [*argv, "--"]


def _unshare(shown: Mapping[Path, Path], executable: str) -> list[str]:
    root = os.geteuid() == 0
    argv = [_which("unshare") or "unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork"]
    # with the first process of a pid namespace, the kernel kills all others, detached ones too
    argv += ["--kill-child", "--propagation", "private"]
    argv += [] if root else ["--user", "--map-root-user"]
    script = _build_root(shown, executable, keep="+setuid,+setgid" if root else "")
    return [*argv, "/bin/sh", "-ec", script, "sh"]


def _build_root(shown: Mapping[Path, Path], executable: str, keep: str) -> str:
    """Shell script that builds the small root, enters it, drops privileges and runs its arguments.

    The new root is mounted over /sys of the private mount namespace: a folder that always exists
    and that nothing here needs.
    """
    q = shlex.quote
    folders = _readable_folders()
    targets = [q(f"/sys{folder}") for folder in folders]
    lines = [f"PATH={_TOOLS}", "cd /", f"mount -t tmpfs -o size={TMP_MIB}m,mode=755 sandbox /sys"]
    lines += [f"mkdir -p {' '.join(targets)} /sys/dev /sys/tmp /sys/old /sys/proc"]
    for folder, target in zip(folders, targets, strict=True):
        lines += [f"mount --bind {q(str(folder))} {target}"]
        # the kernel ignores `ro` on the first bind; it takes a second call
        lines += [f"mount -o remount,bind,ro,nosuid,nodev {target}"]
    for path, source in shown.items():
        target = q(f"/sys{path}")
        lines += [f"mkdir -p {q(f'/sys{path.parent}')}"]
        lines += [f"mkdir {target}" if source.is_dir() else f": > {target}"]
        lines += [f"mount --bind {q(str(source))} {target}"]
        lines += [f"mount -o remount,bind,ro,nosuid,nodev {target}"]
    lines += [f"ln -s {q(target)} {q('/sys' + path)}" for target, path in _links()]
    if executable:  # below the /proc that is mounted for `umount` and goes last
        lines += ["mkdir -p /sys/proc/self", f"ln -s {q(executable)} /sys{_EXECUTABLE}"]
    for device in _DEVICES:
        lines += [f": > /sys/dev/{device}", f"mount --bind /dev/{device} /sys/dev/{device}"]
    flags = "mode=1777,nosuid,nodev"
    lines += [f"mount -t tmpfs -o size={TMP_MIB}m,nr_inodes={TMP_FILES},{flags} sandbox /sys/tmp"]
    # the old root is unmounted, so that no path leads back to it; umount looks up mounts in /proc,
    # so /proc goes last
    lines += ["mount --rbind /proc /sys/proc", "pivot_root /sys /sys/old", "cd /", "umount -l /old"]
    lines += ["rmdir /old", "mount -o remount,bind,ro /", "umount -l /proc", "cd /tmp"]
    environment = " ".join(f"{name}={q(value)}" for name, value in ENVIRONMENT.items())
    drop = f"--bounding-set=-all{',' + keep if keep else ''} --inh-caps=-all --no-new-privs"
    return "\n".join([*lines, f'exec env -i {environment} setpriv {drop} "$@"'])
