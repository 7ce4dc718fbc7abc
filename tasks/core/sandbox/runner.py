"""Starts sandboxes from outside: runs jobs in parallel, one fresh sandbox and one outcome per job.

In: a `Job` (an untrusted program, the name of its function, trusted checks). Out: an `Outcome`. A
failure of the sandbox itself is `infra`: it is retried, and never counts against the program.
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.sandbox import inside, levels

_GRACE_S = 5.0  # for starting and ending a sandbox, besides the time of the program
_MAX_OUTPUT = 64 << 10
_INSTALL = (
    "Install bubblewrap (apt install bubblewrap; dnf install bubblewrap), or allow user namespaces "
    "(sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)."
)


@dataclass(frozen=True)
class Limits:
    """Resources of one program; memory and CPU time are for each of its processes."""

    memory_mib: int = 512
    processes: int = 16
    file_mib: int = 16


@dataclass(frozen=True)
class Job:
    """One program and its checks.

    Attributes:
        program: Untrusted source text; defines `entry`.
        entry: Name of the function that the checks call.
        checks: Trusted source text that raises if the function, a name in it, is wrong.
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
    """How a job ended.

    Attributes:
        status: pass, wrong, exception, syntax, timeout, oom or infra.
        detail: One line of bounded length; may hold text that the program chose.
        seconds: Wall time of program and checks.
    """

    status: str
    detail: str = ""
    seconds: float = 0.0


class Sandbox:
    """One level of isolation, ready to run jobs; created by `Sandbox.best`."""

    def __init__(self, level: str, limits: Limits = Limits(), workers: int = 0) -> None:
        self.level = level
        self.limits = limits
        self.workers = workers or min(8, os.cpu_count() or 1)
        # not -I, which ignores PYTHONHASHSEED: the environment is ours anyway, -P keeps /tmp off
        # the import path, and -S and -s keep out site-packages
        python = [str(levels.interpreter()), "-S", "-s", "-P", "-B", "-c", _bootstrap()]
        self._command = levels.command(level, python)

    @classmethod
    def best(cls, minimum: str, limits: Limits = Limits(), workers: int = 0) -> "Sandbox":
        """The strongest level that works here.

        Raises:
            PipelineError: No level from `minimum` up works; states the reason for each, and what
                to install.
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
        """Why this level does not work on this machine; None if it does."""
        if (tool := levels.missing_tool(self.level)) is not None:
            return f"{tool} is not installed"
        outcome = self._once(Job("def f():\n    return 1\n", "f", "assert f() == 1"), 0)
        return None if outcome.status == inside.PASS else outcome.detail or outcome.status

    def run(self, job: Job, slot: int = 0, tries: int = 3) -> Outcome:
        """Run one job; `infra` only after `tries` failures of the sandbox."""
        for _ in range(tries):
            outcome = self._once(job, slot)
            if outcome.status != inside.INFRA:
                break
        return outcome

    def run_all(
        self, jobs: Sequence[Job], done: Callable[[int], None] = lambda count: None
    ) -> list[Outcome]:
        """Run many jobs on `workers` threads; outcomes in the order of the jobs.

        Args:
            jobs: What to run.
            done: Called with the number of finished jobs, from this thread.
        """
        # a slot has its own user ids: jobs that run at the same time must not share them, as
        # RLIMIT_NPROC counts by user and a program may signal every process of its user
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.workers):
            slots.put(slot)

        def one(job: Job) -> Outcome:
            slot = slots.get()
            try:
                return self.run(job, slot)
            finally:
                slots.put(slot)

        outcomes = []
        with ThreadPoolExecutor(self.workers) as pool:
            for outcome in pool.map(one, jobs):
                outcomes.append(outcome)
                done(len(outcomes))
        return outcomes

    def _once(self, job: Job, slot: int) -> Outcome:
        # 128 random bits that only the checker reads: without them no output counts as a result
        nonce = secrets.token_hex(16)
        limits = asdict(self.limits) | {"cpu_s": int(job.timeout_s) + 2}
        # the program's process sees its command line, so nothing in the options is secret; job and
        # nonce go through standard input, which the checker reads after the fork
        options = asdict(levels.identity(self.level, slot)) | {"limits": limits}
        out, err, code = _communicate(
            [*self._command, json.dumps(options)],
            json.dumps(asdict(job) | {"nonce": nonce}).encode("ascii"),
            job.timeout_s + _GRACE_S,
        )
        return _read_outcome(out, err, code, nonce)


def _bootstrap() -> str:
    """Python text that runs `inside`, compiled here once: compiling is a tenth of a run's time."""
    source = Path(inside.__file__).read_text(encoding="utf-8")
    code = base64.b64encode(marshal.dumps(compile(source, "<inside>", "exec"))).decode("ascii")
    return f"import binascii,marshal;exec(marshal.loads(binascii.a2b_base64('{code}')))"


def _communicate(
    argv: list[str], message: bytes, limit_s: float
) -> tuple[bytes, bytes, int | None]:
    """Run a command; its process group is dead on return. The code is None after a timeout."""
    # standard error goes to a file: through a pipe, a flood of output would fill our memory
    with tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # only the checker writes there: two short lines
                stderr=err,
                env=levels.ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a process group of its own, to kill as a whole
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
            with contextlib.suppress(ProcessLookupError):  # all of it has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        err.seek(0)
        return out, err.read(_MAX_OUTPUT), code


def _read_outcome(out: bytes, err: bytes, code: int | None, nonce: str) -> Outcome:
    """The outcome on the last line, if the line begins with the nonce."""
    lines = out.decode("utf-8", "replace").splitlines()
    if lines and lines[-1].startswith(nonce):
        status, detail, seconds = json.loads(lines[-1][len(nonce) :])
        return Outcome(status, detail, seconds)
    if not lines or lines[0] != inside.STARTED:
        errors = err.decode("utf-8", "replace").strip().splitlines()
        why = errors[-1][: inside.MAX_DETAIL] if errors else "it gave no reason"
        return Outcome(inside.INFRA, f"the sandbox did not start: {why}")
    if code is None:
        return Outcome(inside.TIMEOUT, "the sandbox was stopped from outside")
    # once started, only the program can have ended its checker: not `infra`, which is retried
    return Outcome(inside.EXCEPTION, "ended its checker")
