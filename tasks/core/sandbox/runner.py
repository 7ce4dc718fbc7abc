"""Starts sandboxes from outside: runs jobs in parallel, one fresh sandbox and one outcome per job.

In: a `Job` (an untrusted program, the name of its function, trusted checks). Out: an `Outcome`. A
failure of the sandbox itself is `infra`: it is retried, and never counts against the program.
"""

import base64
import json
import marshal
import os
import platform
import queue
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.sandbox import (
    called_program,
    cgroup,
    confinement,
    inside,
    levels,
    messages,
    packages,
    plain_data,
    program,
    syscalls,
)
from tasks.core.sandbox.process import Outcome, read_outcome, run_process

_GRACE_S = 5.0  # for starting and ending a sandbox, besides the time of the program
_INSTALL = (
    "Install bubblewrap (apt install bubblewrap; dnf install bubblewrap), or allow user namespaces "
    "(sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)."
)
_WEAKNESS = {levels.RLIMITS: "; programs can use your files and the network"}


@dataclass(frozen=True)
class Limits:
    """Resources of one program and of its checks; memory and CPU time are for each process, and
    all processes of a sandbox together get twice the memory."""

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
        together: Run the checks in the program's process: they can use all that it defines, but a
            program that reads them can fake a pass. `setup` is not used.
        packages: Installed distributions that the program may import, such as "numpy".
        limits: Instead of those of the sandbox; None: those.
        executable: Of a compiler, see `levels.command`.
        folders: That it reads outside of /usr.
    """

    program: str
    entry: str
    checks: str
    setup: str = ""
    timeout_s: float = 4.0
    together: bool = False
    packages: tuple[str, ...] = ()
    limits: Limits | None = None
    executable: str = ""
    folders: tuple[str, ...] = ()


class Sandbox:
    """One level of isolation, ready to run jobs; created by `Sandbox.best`.

    Attributes:
        level: Of `levels.LADDER`.
        limits: Of each job that has none of its own.
        workers: Programs that run at the same time.
        without_group: Why no cgroup limits a sandbox as a whole; "": one does.
    """

    def __init__(self, level: str, limits: Limits = Limits(), workers: int = 0) -> None:
        self.level = level
        self.limits = limits
        self.workers = workers or min(8, os.cpu_count() or 1)
        # not -I, which ignores PYTHONHASHSEED: the environment is ours anyway, -P keeps /tmp off
        # the import path, and -S and -s keep out site-packages
        python = [str(levels.interpreter()), "-S", "-s", "-P", "-B", "-c", _bootstrap()]
        self._python = python
        self._command = levels.command(level, python)
        self._filter = syscalls.build_filter()
        self._keyctl = syscalls.numbers()["keyctl"]
        self.without_group = cgroup.usable()[1]

    @classmethod
    def best(
        cls, minimum: str, limits: Limits = Limits(), workers: int = 0, purpose: str = ""
    ) -> "Sandbox":
        """The strongest level that works here.

        Args:
            minimum: The weakest level to use.
            limits: Of one program.
            workers: Programs that run at the same time; 0: one per core.
            purpose: What runs there; a message names it and the level. "": no message.

        Raises:
            PipelineError: No level from `minimum` up works; states the reason for each, and what
                to install.
        """
        reasons: list[str] = []
        for level in levels.LADDER[: levels.LADDER.index(minimum) + 1]:
            sandbox = cls(level, limits, workers)
            if (reason := sandbox.defect()) is None:
                if purpose:
                    why = f" ({'; '.join(reasons)})" if reasons else ""
                    say(f"sandbox: {purpose} under {sandbox.name}{why}{_WEAKNESS.get(level, '')}")
                return sandbox
            reasons.append(f"{level}: {reason}")
        raise PipelineError(
            f"no sandbox of level {minimum} or better works here ({'; '.join(reasons)})", _INSTALL
        )

    @property
    def name(self) -> str:
        """The level, and whether the kernel limits each sandbox as a whole."""
        return self.level if self.without_group else f"{self.level} in a cgroup"

    def defect(self) -> str | None:
        """Why this level does not work on this machine; None if it does."""
        if (tool := levels.missing_tool(self.level)) is not None:
            return f"{tool} is not installed"
        if self._filter is None:
            return f"there is no system-call filter for {platform.machine()}"
        if self.level == levels.RLIMITS and os.geteuid() == 0:
            return "as root, a program could write its own outcome"
        outcome = self._once(Job("def f():\n    return 1\n", "f", "assert f() == 1"), 0)
        return None if outcome.status == messages.PASS else outcome.detail or outcome.status

    def run(self, job: Job, slot: int = 0, tries: int = 3) -> Outcome:
        """Run one job; `infra` only after `tries` failures of the sandbox."""
        for _ in range(tries):
            outcome = self._once(job, slot)
            if outcome.status != messages.INFRA:
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

    def judge_all(
        self, jobs: Sequence[Job], done: Callable[[int], None] = lambda count: None
    ) -> list[Outcome]:
        """`run_all` for outcomes that decide about rows of the data.

        Raises:
            PipelineError: The sandbox failed for a job again and again: such an outcome would be
                stored as one of the program.
        """
        outcomes = self.run_all(jobs, done)
        failed = [outcome for outcome in outcomes if outcome.status == messages.INFRA]
        if failed:
            raise PipelineError(
                f"the sandbox failed for {len(failed)} of {len(jobs)} programs: {failed[0].detail}",
                "If other programs take the memory, end them; then run again.",
            )
        return outcomes

    def _once(self, job: Job, slot: int) -> Outcome:
        # 128 random bits that only the checker reads: without them no output counts as a result
        nonce = secrets.token_hex(16)
        own = job.limits or self.limits
        limits = asdict(own) | {"cpu_s": int(job.timeout_s) + 2}
        command, paths = self._command, list[str]()
        if job.packages or job.executable or job.folders:
            entries = packages.folders(job.packages) if job.packages else {}
            command = levels.command(self.level, self._python, entries, job.executable, job.folders)
            paths = levels.package_paths(self.level, entries) if entries else []
        # the program's process sees its command line, so nothing in the options is secret; job and
        # nonce go through standard input, which the checker reads after the fork
        options = asdict(levels.identity(self.level, slot)) | {
            "limits": limits,
            "tmp_files": levels.TMP_FILES if self.level == levels.BUBBLEWRAP else 0,
            "keyctl": self._keyctl,
            "filter": self._filter,
            "paths": paths,
        }
        ended = run_process(
            [*command, json.dumps(options)],
            json.dumps(asdict(job) | {"nonce": nonce}).encode("ascii"),
            job.timeout_s + _GRACE_S,
            2 * own.memory_mib,
            2 * own.processes,
            own_folder=self.level == levels.RLIMITS,
        )
        return read_outcome(ended, nonce, limits["cpu_s"])


def _bootstrap() -> str:
    """Python text that runs `inside`, compiled here once: compiling is a tenth of a run's time."""
    modules = []
    for module in (plain_data, confinement, messages, program, called_program, inside):
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        modules.append((module.__name__, compile(source, f"<{module.__name__}>", "exec")))
    code = base64.b64encode(marshal.dumps(modules)).decode("ascii")
    return (
        "import binascii,marshal,sys\n"
        f"*parts,(_,main)=marshal.loads(binascii.a2b_base64('{code}'))\n"
        "for name,code in parts:\n"
        " module=sys.modules[name]=type(sys)(name);exec(code,vars(module))\n"
        "exec(main)"
    )
