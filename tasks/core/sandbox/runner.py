"""Run jobs in the best sandbox of this machine, several at a time, each with one verdict.

In: a `Job` (an untrusted program, the name of its function, trusted checks). Out: an `Outcome`. A
failure of the sandbox itself is `infra`: tried again, and never charged to the program.
"""

import base64
import contextlib
import json
import marshal
import os
import queue
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.sandbox import inside, levels

_GRACE_S = 5.0  # what starting and ending a sandbox may take beside the program
_MAX_OUTPUT = 64 << 10
_INSTALL = (
    "Install bubblewrap (apt install bubblewrap; dnf install bubblewrap), or allow user namespaces "
    "(sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)."
)


@dataclass(frozen=True)
class Limits:
    """What one program may use; memory and CPU time are for each of its processes."""

    memory_mib: int = 512
    processes: int = 16
    file_mib: int = 16


@dataclass(frozen=True)
class Job:
    """One program to judge.

    Attributes:
        program: Untrusted source text; defines `entry`.
        entry: Name of the function that the checks call.
        checks: Trusted source text that raises where the function, a name in it, is wrong.
        setup: Trusted source text run before the checks, for names that they need beside `entry`.
        timeout_s: Wall time for the program and its checks together.
    """

    program: str
    entry: str
    checks: str
    setup: str = ""
    timeout_s: float = 4.0


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        verdict: pass, wrong, exception, syntax, timeout, oom or infra.
        detail: One bounded line; it may hold text that the program chose.
        seconds: Wall time of program and checks.
    """

    verdict: str
    detail: str = ""
    seconds: float = 0.0


class Sandbox:
    """One level of isolation, ready to run jobs; make it with `Sandbox.best`."""

    def __init__(self, level: str, limits: Limits = Limits(), workers: int = 0) -> None:
        self.level = level
        self.limits = limits
        self.workers = workers or min(8, os.cpu_count() or 1)
        # -I would ignore the fixed hash seed; the environment is ours, and -P keeps /tmp out
        python = [str(levels.interpreter()), "-S", "-s", "-P", "-B", "-c", _bootstrap()]
        self._command = levels.command(level, python)

    @classmethod
    def best(cls, minimum: str, limits: Limits = Limits(), workers: int = 0) -> "Sandbox":
        """The best level that works here.

        Raises:
            PipelineError: No level from `minimum` up works; says why for each, and what to install.
        """
        reasons = []
        for level in levels.LADDER[: levels.LADDER.index(minimum) + 1]:
            sandbox = cls(level, limits, workers)
            if (reason := sandbox.defect()) is None:
                return sandbox
            reasons.append(f"{level}: {reason}")
        raise PipelineError(
            f"no sandbox of level {minimum} or better works here ({'; '.join(reasons)})", _INSTALL
        )

    def defect(self) -> str | None:
        """Why this level doesn't work on this machine; None: it does."""
        if (tool := levels.missing_tool(self.level)) is not None:
            return f"{tool} is not installed"
        outcome = self._once(Job("def f():\n    return 1\n", "f", "assert f() == 1"), 0)
        return None if outcome.verdict == inside.PASS else outcome.detail or outcome.verdict

    def run(self, job: Job, slot: int = 0, tries: int = 3) -> Outcome:
        """Judge one job; `infra` only after `tries` failures of the sandbox."""
        outcome = self._once(job, slot)
        for _ in range(tries - 1):
            if outcome.verdict != inside.INFRA:
                break
            outcome = self._once(job, slot)
        return outcome

    def run_all(
        self, jobs: Sequence[Job], done: Callable[[int], None] = lambda count: None
    ) -> list[Outcome]:
        """Judge many jobs on `workers` threads; outcomes in the order of the jobs.

        Args:
            jobs: What to run.
            done: Called with the number of finished jobs, from this thread.
        """
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.workers):
            slots.put(slot)

        def one(job: Job) -> Outcome:
            slot = slots.get()
            try:
                return self.run(job, slot)
            finally:
                slots.put(slot)

        with ThreadPoolExecutor(self.workers) as pool:
            return list(_counted(pool.map(one, jobs), done))

    def _once(self, job: Job, slot: int) -> Outcome:
        nonce = secrets.token_hex(16)
        who = levels.identity(self.level, slot)
        options = {
            "program_uid": who.program_uid,
            "checker_uid": who.checker_uid,
            "limits": {
                "memory_mib": self.limits.memory_mib,
                "processes": self.limits.processes,
                "file_mib": self.limits.file_mib,
                "cpu_s": int(job.timeout_s) + 2,
            },
        }
        message = {
            "program": job.program,
            "entry": job.entry,
            "checks": job.checks,
            "setup": job.setup,
            "timeout_s": job.timeout_s,
            "nonce": nonce,
        }
        out, err, code = _communicate(
            [*self._command, json.dumps(options)],
            json.dumps(message).encode("ascii"),
            job.timeout_s + _GRACE_S,
        )
        return _read_verdict(out, err, code, nonce)


def _bootstrap() -> str:
    """Text that starts `inside.main`; compiled here once, as that would take a tenth of a run."""
    source = Path(inside.__file__).read_text(encoding="utf-8")
    code = base64.b64encode(marshal.dumps(compile(source, "<inside>", "exec"))).decode("ascii")
    return f"import binascii,marshal;exec(marshal.loads(binascii.a2b_base64('{code}')))"


def _counted(outcomes: Iterable[Outcome], done: Callable[[int], None]) -> Iterable[Outcome]:
    for count, outcome in enumerate(outcomes, 1):
        done(count)
        yield outcome


def _communicate(
    words: list[str], message: bytes, limit_s: float
) -> tuple[bytes, bytes, int | None]:
    """Run a command; its process group is dead when this returns. Code None: out of time."""
    with tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # the checker alone writes there, two short lines
                stderr=err,
                env=levels.ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return b"", str(error).encode(), 1
        out = b""
        code: int | None = None
        try:
            out, _ = process.communicate(message, timeout=limit_s)
            code = process.returncode
        except subprocess.TimeoutExpired as expired:
            out = expired.stdout or b""
        finally:
            _kill_group(process)
        err.seek(0)
        return out, err.read(_MAX_OUTPUT), code


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_verdict(out: bytes, err: bytes, code: int | None, nonce: str) -> Outcome:
    """The verdict on the last line, if the nonce stands before it."""
    lines = out.decode("utf-8", "replace").splitlines()
    if lines and lines[-1].startswith(nonce):
        verdict, detail, seconds = json.loads(lines[-1][len(nonce) :])
        return Outcome(verdict, detail, seconds)
    if not lines or lines[0] != inside.STARTED:
        told = err.decode("utf-8", "replace").strip().splitlines()
        why = told[-1][: inside.MAX_DETAIL] if told else "it gave no reason"
        return Outcome(inside.INFRA, f"the sandbox did not start: {why}")
    if code is None:
        return Outcome(inside.TIMEOUT, "the sandbox was stopped from outside")
    # after the start only the program can have ended its checker
    return Outcome(inside.EXCEPTION, "ended its checker")
