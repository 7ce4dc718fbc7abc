"""Sandbox: runs untrusted programs (generated code, doctests) and decides whether they pass checks.

`Sandbox.best("unshare")` returns the strongest level of isolation that works on this machine;
`run_all(jobs)` returns one outcome per job.

levels.py       what each level isolates, and the command line that starts it
syscalls.py     the system calls that no program can make
runner.py       starts sandboxes from outside, in parallel; one outcome per job
process.py      input, output, time, total memory and outcome of one sandbox
cgroup.py       limits of the kernel on a sandbox as a whole, where groups can be created
packages.py     installed packages that a job makes importable
inside.py       the checker: how a program is kept from faking an outcome
program.py      the program's process; called_program.py: as the checks see it
messages.py     what the two exchange, with values as plain_data.py
confinement.py  limits of both processes

docs/security.md states what is promised, against whom, and what is not protected.
"""

from tasks.core.sandbox.levels import BUBBLEWRAP, LADDER, RLIMITS, UNSHARE
from tasks.core.sandbox.messages import (
    EXCEPTION,
    INFRA,
    NOT_JUDGED,
    OOM,
    PASS,
    SYNTAX,
    TIMEOUT,
    WRONG,
)
from tasks.core.sandbox.process import Outcome
from tasks.core.sandbox.runner import Job, Limits, Sandbox

__all__ = ["BUBBLEWRAP", "LADDER", "RLIMITS", "UNSHARE"]
__all__ += ["EXCEPTION", "INFRA", "NOT_JUDGED", "OOM", "PASS", "SYNTAX", "TIMEOUT", "WRONG"]
__all__ += ["Job", "Limits", "Outcome", "Sandbox"]
