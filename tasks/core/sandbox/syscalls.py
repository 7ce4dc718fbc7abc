"""System-call filter (seccomp-bpf): the calls that no program of the sandbox can make.

A deny list, because an allow list would have to follow every release of Python and its packages.
It holds what a pure computation never needs and what has been a way out or around the limits: the
kernel's keyrings (not divided by namespaces), System V and POSIX queues and memfd (memory that no
limit on a process counts), new namespaces, mounts, io_uring, bpf, perf, userfaultfd, tracing,
signals to the checker, and all socket families but local and Internet ones.

In: nothing. Out: instructions of classic BPF, which `inside` installs just before the untrusted
program starts. A program of another architecture's calls (32-bit ones on x86-64) is killed.
"""

import errno
import platform
from collections.abc import Sequence

# operand -> this process's number or group, which `inside` fills in at run time
PID, GROUP = "pid", "group"
Instruction = tuple[int, int, int, int | str]  # code, jump if true, jump if false, operand

# name: its number on (x86-64, AArch64), from the kernel's tables; tests compare with libseccomp
_DENIED = {
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "syslog": (103, 116),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
}
_NAMESPACES = 0x7E020000  # all CLONE_NEW* flags of <linux/sched.h>
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15  # a file that sends SIGKILL to any process
_FIOSETOWN, _SIOCSPGRP, _TIOCSTI = 0x8901, 0x8902, 0x5412
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6

# of <linux/filter.h> and <linux/seccomp.h>
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_AT_LEAST = 0x35
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000  # bit of the x32 calls, which x86-64 kernels may answer, too


def _fail(number: int) -> Instruction:
    return (_RETURN, 0, 0, _FAIL | number)


def _on_argument(
    numbers: tuple[int, int],
    argument: int,
    test: int,
    values: Sequence[int | str],
    then: int,
    otherwise: int = 0,
) -> tuple[tuple[int, int], list[Instruction]]:
    """A call's instructions: error `then` if an argument matches a value, else `otherwise`; 0:
    allowed. Compares 32 bits, as the kernel does for each of these arguments."""
    results = [_fail(error) if error else (_RETURN, 0, 0, _ALLOW) for error in (otherwise, then)]
    tests = [(test, len(values) - at, 0, value) for at, value in enumerate(values)]
    return numbers, [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument), *tests, *results]


_CHECKED = {
    "clone": _on_argument((56, 220), 0, _ANY_BIT, (_NAMESPACES,), errno.EPERM),
    # its flags are in memory, where no filter can read them: the C library falls back to clone
    "clone3": ((435, 435), [_fail(errno.ENOSYS)]),
    # -1: every process of the user
    "kill": _on_argument((62, 129), 0, _EQUAL, (0xFFFFFFFF, PID, GROUP), errno.EPERM),
    "tgkill": _on_argument((234, 131), 0, _EQUAL, (PID,), errno.EPERM),
    "prlimit64": _on_argument((302, 261), 0, _EQUAL, (0,), 0, errno.EPERM),
    "fcntl": _on_argument((72, 25), 1, _EQUAL, (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX), errno.EPERM),
    "ioctl": _on_argument((16, 29), 1, _EQUAL, (_FIOSETOWN, _SIOCSPGRP, _TIOCSTI), errno.EPERM),
    "socket": _on_argument((41, 198), 0, _EQUAL, _FAMILIES, 0, errno.EAFNOSUPPORT),
    "socketpair": _on_argument((53, 199), 0, _EQUAL, _FAMILIES, 0, errno.EAFNOSUPPORT),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*


def numbers(machine: str = "") -> dict[str, int]:
    """Number of each call in the list; -1 for an architecture that has no table here."""
    column = _ARCHITECTURES.get(machine or platform.machine(), (-1,))[0]
    if column < 0:
        return dict.fromkeys((*_DENIED, *_CHECKED), -1)
    checked = {name: found for name, (found, _) in _CHECKED.items()}
    return {name: found[column] for name, found in {**_DENIED, **checked}.items()}


def build_filter(machine: str = "") -> list[Instruction] | None:
    """The filter's instructions; None for an architecture that has no table here.

    Args:
        machine: Architecture, as `platform.machine()` names it; "" this one.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        return None
    column, arch = _ARCHITECTURES[machine]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),
        _fail(errno.ENOSYS),
    ]
    for found, body in [*_CHECKED.values(), *((n, [_fail(errno.EPERM)]) for n in _DENIED.values())]:
        program += [(_EQUAL, 0, len(body), found[column]), *body]
    return [*program, (_RETURN, 0, 0, _ALLOW)]
