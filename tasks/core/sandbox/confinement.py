"""Limits of a process inside the sandbox: resources, user, capabilities, keyring, system calls.

Runs inside the sandbox, so it imports the standard library only.
"""

import ctypes
import os
import resource
from collections.abc import Sequence
from typing import Any

# of <linux/prctl.h>, <linux/seccomp.h>, <linux/keyctl.h>, <linux/capability.h>, <linux/mount.h>
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SETGID, _CAP_SETUID = 1 << 6, 1 << 7
_MS_REMOUNT, _MS_NOSUID, _MS_NODEV = 32, 2, 4
_libc = ctypes.CDLL(None, use_errno=True)


class _Instruction(ctypes.Structure):
    """`struct sock_filter`."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Filter(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def limit(memory_mib: int, cpu_s: int, processes: int, file_mib: int) -> None:
    """Lower this process's limits for good (hard limits, too); its children inherit them."""
    wanted = {
        resource.RLIMIT_AS: memory_mib << 20,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_NPROC: processes,  # fork bombs; counts all processes of the user id
        resource.RLIMIT_FSIZE: file_mib << 20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        free = hard == resource.RLIM_INFINITY
        soft = value if free else min(value, hard)
        # the soft CPU limit sends SIGXCPU, the hard one a second later SIGKILL: with both equal, a
        # timeout would look like a kill for memory
        top = soft + 1 if name == resource.RLIMIT_CPU and free else soft
        resource.setrlimit(name, (soft, top))


def switch_user(uid: int) -> None:
    """Change to user and group `uid` for good; 0: keep the present user."""
    if uid:
        os.setgroups([])  # first, as all three need root's rights
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def hide_memory() -> None:
    """No ptrace and no /proc/<pid>/mem by another process of the same user."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent() -> None:
    """Be killed when the parent ends; a change of user clears this."""
    _libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)


def bound_files(folder: str, files: int) -> None:
    """Bound the number of files of a file system in memory, then give up the right to mount.

    bubblewrap has an option for its size alone: three million empty files take 3 GiB.

    Raises:
        OSError: The kernel refuses.
    """
    flags = _MS_REMOUNT | _MS_NOSUID | _MS_NODEV
    if _libc.mount(None, folder.encode(), None, flags, b"nr_inodes=%d" % files):
        raise OSError(ctypes.get_errno(), f"{folder} can't be limited to {files} files")
    # the checker, started by root, still has to change its user
    kept = _CAP_SETGID | _CAP_SETUID if os.geteuid() == 0 else 0
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable
    if _libc.capset(head, sets):
        raise OSError(ctypes.get_errno(), "the right to mount can't be given up")


def new_keyring(keyctl: int) -> None:
    """Leave the session keyring of the user who started the sandbox; `keyctl`: the call's number.

    Failure is no error: containers often forbid the call, and the filter does in any case.
    """
    _libc.syscall(keyctl, _KEYCTL_JOIN_SESSION_KEYRING, None)


def filter_system_calls(instructions: Sequence[Sequence[Any]]) -> None:
    """Install a filter of `syscalls` for good, in this process and all that it starts.

    Raises:
        OSError: The kernel has no seccomp, or refuses.
    """
    operands = {"pid": os.getpid(), "group": -os.getpgid(0) & 0xFFFFFFFF}
    listed = (_Instruction * len(instructions))(
        *(_Instruction(code, jt, jf, operands.get(k, k)) for code, jt, jf, k in instructions)
    )
    program = _Filter(len(instructions), listed)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the system-call filter can't be installed")
