"""Judging programs that nobody has read: generated code runs here and nowhere else.

`Sandbox.best("unshare")` finds the best level of isolation that works on this machine,
`run_all(jobs)` gives one verdict a job. See `levels` for what each level isolates and `inside` for
how a verdict is protected.

Not protected, under any level:
- the kernel: a hole in it is a way out; there is no system-call filter and no virtual machine;
- timing and load: programs see the clock, share the CPU's caches and can slow the machine down
  within their limits;
- what can be read: files under /usr and of the interpreter, installed packages there included;
- the checks' text is trusted: it is not for strangers' benchmarks that nobody has read;
- memory is limited for each process, so a program may use its limit times its processes, and the
  small /tmp in memory besides.
Under "rlimits" also: files and network of the user, a process that leaves its session, and, started
by root, the number of processes and the checker itself. That level is only ever used when it is
asked for by name.
"""

from tasks.core.sandbox.inside import (
    EXCEPTION,
    INFRA,
    OOM,
    PASS,
    SYNTAX,
    TIMEOUT,
    WRONG,
)
from tasks.core.sandbox.levels import (
    BUBBLEWRAP,
    LADDER,
    RLIMITS,
    UNSHARE,
)
from tasks.core.sandbox.runner import (
    Job,
    Limits,
    Outcome,
    Sandbox,
)

__all__ = [
    "BUBBLEWRAP",
    "EXCEPTION",
    "INFRA",
    "LADDER",
    "OOM",
    "PASS",
    "RLIMITS",
    "SYNTAX",
    "TIMEOUT",
    "UNSHARE",
    "WRONG",
    "Job",
    "Limits",
    "Outcome",
    "Sandbox",
]
