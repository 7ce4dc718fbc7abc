"""The process of one sandbox, seen from outside: input, output, time, total memory, outcome.

Without a cgroup, limits of the kernel on memory apply to each process of a sandbox. What all of
them take together is measured every tenth of a second, so it can exceed the limit for a moment.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tasks.core.sandbox import cgroup
from tasks.core.sandbox.inside import STARTED
from tasks.core.sandbox.levels import ENVIRONMENT
from tasks.core.sandbox.messages import EXCEPTION, INFRA, OOM, TIMEOUT
from tasks.core.sandbox.plain_data import MAX_DETAIL

_MAX_OUTPUT = 64 << 10
_MEASURE_EVERY_S = 0.1
_SHELLS_ADD = 128  # to the number of the signal that ended a child


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: pass, wrong, exception, syntax, timeout, oom or infra.
        detail: One line of bounded length; may hold text that the program chose.
        seconds: Wall time of program and checks.
    """

    status: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        out: Standard output.
        err: The beginning of standard error.
        code: Exit status; None where it was killed from here for its time.
        seconds: Wall time.
        memory_mib: What all its processes held together when it was killed for that, at least; 0:
            it was not.
    """

    out: bytes
    err: bytes
    code: int | None
    seconds: float
    memory_mib: int = 0

    def ended_by(self, number: int) -> bool:
        """Whether a signal ended it, or its child where a parent passed the status on."""
        # unshare tries to end itself by the same signal, which fails for SIGKILL with status 1;
        # a program can't write to standard error
        failed = number == signal.SIGKILL and self.code == 1 and b"unshare: sigproc" in self.err
        return self.code in (-number, _SHELLS_ADD + number) or failed


def run_process(
    argv: Sequence[str],
    message: bytes,
    limit_s: float,
    total_mib: int,
    processes: int,
    own_folder: bool = False,
) -> Ended:
    """Run a command; its process group is dead on return.

    Args:
        argv: The command line.
        message: Its standard input.
        limit_s: Wall time until it is killed.
        total_mib: Memory of all its processes at which it is killed.
        processes: Of which it has at most this many, if there is a cgroup for it.
        own_folder: Whether it starts in a temporary folder, its home and TMPDIR: without a root of
            its own, the files that it leaves go there.
    """
    parent, _ = cgroup.usable()
    groups = cgroup.group(parent, total_mib, processes) if parent else nullcontext()
    if not own_folder:
        with groups as group:
            return _run(argv, message, limit_s, total_mib, ENVIRONMENT, "/", group)
    with groups as group, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = ENVIRONMENT | {"HOME": folder, "TMPDIR": folder}
        return _run(argv, message, limit_s, total_mib, environment, folder, group)


def _run(
    argv: Sequence[str],
    message: bytes,
    limit_s: float,
    total_mib: int,
    environment: Mapping[str, str],
    folder: str,
    group: cgroup.Group | None,
) -> Ended:
    begin = time.monotonic()
    argv = group.start(argv) if group else argv
    # standard error goes to a file: through a pipe, a flood of output would fill our memory
    with tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # only the checker writes there: two short lines
                stderr=err,
                env=environment,
                cwd=folder,
                start_new_session=True,  # its own process group, to be killed as a whole
            )
        except OSError as error:
            return Ended(b"", str(error).encode(), 1, 0.0)
        out, code, held_mib = b"", None, 0
        text: bytes | None = message
        try:
            while True:
                try:
                    out, _ = process.communicate(text, timeout=_MEASURE_EVERY_S)
                    code = process.returncode
                    break
                except subprocess.TimeoutExpired as expired:
                    out, text = expired.stdout or b"", None  # it keeps what it has not sent yet
                held_mib = memory_mib(process.pid)
                if held_mib > total_mib or time.monotonic() - begin > limit_s:
                    break
        finally:
            with contextlib.suppress(ProcessLookupError):  # all its processes have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        err.seek(0)
        over = held_mib if code is None and held_mib > total_mib else 0
        if group and group.exceeded():
            over = total_mib
        return Ended(out, err.read(_MAX_OUTPUT), code, time.monotonic() - begin, over)


def memory_mib(pid: int) -> int:
    """Resident memory of a process and all its descendants; what they share counts for each."""
    pages, left = 0, [str(pid)]
    while left:
        folder = Path("/proc", left.pop())
        with contextlib.suppress(OSError, IndexError):  # it has ended
            pages += int((folder / "statm").read_text().split()[1])
            for task in (folder / "task").iterdir():
                left += (task / "children").read_text().split()
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def read_outcome(ended: Ended, nonce: str, cpu_s: int) -> Outcome:
    """The outcome on the last line, if the line begins with the nonce; else why there is none."""
    lines = ended.out.decode("utf-8", "replace").splitlines()
    if lines and lines[-1].startswith(nonce):
        status, detail, seconds = json.loads(lines[-1][len(nonce) :])
        return Outcome(status, detail, seconds)
    if ended.memory_mib:
        return Outcome(OOM, f"its processes used {ended.memory_mib} MiB together")
    if not lines or lines[0] != STARTED:
        errors = ended.err.decode("utf-8", "replace").strip().splitlines()
        why = errors[-1][:MAX_DETAIL] if errors else "it gave no reason"
        return Outcome(INFRA, f"the sandbox did not start: {why}")
    return _end_of_checker(ended, cpu_s)


def _end_of_checker(ended: Ended, cpu_s: int) -> Outcome:
    """Whose fault it is that a checker ended early."""
    if ended.code is None:
        return Outcome(TIMEOUT, "the sandbox was stopped from outside")
    killed = ended.ended_by(signal.SIGKILL)
    # as the first process of a pid namespace the checker ignores SIGXCPU; SIGKILL follows then
    if ended.ended_by(signal.SIGXCPU) or (killed and ended.seconds >= cpu_s):
        return Outcome(TIMEOUT, "the checks used up their CPU time")
    if killed:
        # the program can't signal its checker: the kernel had no memory, or the user stopped it
        return Outcome(INFRA, "the checker was killed")
    return Outcome(EXCEPTION, "ended its checker")
