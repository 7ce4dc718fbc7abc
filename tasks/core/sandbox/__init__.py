"""Sandbox: runs untrusted programs (generated code, doctests) and decides whether they pass checks.

`Sandbox.best("unshare")` returns the strongest level of isolation that works on this machine;
`run_all(jobs)` returns one outcome per job. `levels` describes what each level isolates; `inside`
describes how a program is kept from faking an outcome.

Out of scope, at every level:
- The kernel: a vulnerability in it is an escape; there is no system-call filter and no virtual
  machine.
- Timing and load: programs see the clock, share the CPU's caches and can slow the machine down
  within their limits.
- Readable files: /usr and the interpreter's own files, including packages installed there.
- The text of the checks, which is trusted: do not run benchmarks of strangers without reading them.
- Total memory: the limit is per process, so a program can use the limit times its processes, and
  the small /tmp in memory besides.

At level "rlimits" also: files and network of the user, processes that leave their session and, as
root, the number of processes and the checker itself. That level is used only if the settings name
it.
"""

from tasks.core.sandbox.inside import EXCEPTION, INFRA, OOM, PASS, SYNTAX, TIMEOUT, WRONG
from tasks.core.sandbox.levels import BUBBLEWRAP, LADDER, RLIMITS, UNSHARE
from tasks.core.sandbox.runner import Job, Limits, Outcome, Sandbox

__all__ = ["BUBBLEWRAP", "LADDER", "RLIMITS", "UNSHARE"]
__all__ += ["EXCEPTION", "INFRA", "OOM", "PASS", "SYNTAX", "TIMEOUT", "WRONG"]
__all__ += ["Job", "Limits", "Outcome", "Sandbox"]
