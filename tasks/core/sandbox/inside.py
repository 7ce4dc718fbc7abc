"""Code inside the sandbox: a trusted checker and an untrusted program, in two processes.

In: one job as JSON on standard input. Out: the line "started", then, as the last line, the job's
nonce and an outcome.

The checker forks the program's process *before* it reads the job, so the program's memory never
holds the nonce or the checks. The program answers calls over a pipe, as plain data only (numbers,
text, lists, dicts ...). An object whose `__eq__` is always true, a patched builtin, an edited list
of results or a guessed outcome therefore cannot pass: the comparison happens in the checker, which
runs nothing that the program wrote. Exiting early (`sys.exit(0)`) is no answer.

A job that is run `together` gives that up: its checks run in the program's process, which reports
whether they passed. They can use whatever the program defines, prints or changes.

`runner` sends this file and those that it imports as one compiled text, because inside there is a
bare interpreter, without this project and without a path to it. They import only the standard
library, and of that only what is needed, because most of a run's time is the interpreter's start.
"""

import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

from tasks.core.sandbox.called_program import Program, ProgramFailed
from tasks.core.sandbox.confinement import (
    bound_files,
    die_with_parent,
    filter_system_calls,
    hide_memory,
    limit,
    new_keyring,
    switch_user,
)
from tasks.core.sandbox.messages import (
    CHECKS,
    EXCEPTION,
    NOT_JUDGED,
    OOM,
    PASS,
    TIMEOUT,
    WRONG,
    describe,
    failed_line,
    seed,
)
from tasks.core.sandbox.plain_data import (
    MAX_DETAIL,
    NotPlainDataError,
)
from tasks.core.sandbox.program import serve

STARTED = "started"


class ChecksTooLong(BaseException):
    """The checks themselves did not finish in time."""


def check(program: Program, job: dict[str, Any]) -> tuple[str, str]:
    """Run the job's checks against the program; returns status and detail."""
    try:
        if job["together"]:
            return _check_together(program, job)
        _run_checks(program, job)
    except ProgramFailed as failed:
        return failed.status, failed.detail
    except ChecksTooLong:
        return TIMEOUT, "the checks ran out of time"
    except NotPlainDataError as error:
        return NOT_JUDGED, f"the test passes a {error}"
    except Exception as error:
        return _failure(error, program, job["checks"])
    # checks that catch every exception end here even if the program has failed
    return (program.failed.status, program.failed.detail) if program.failed else (PASS, "")


def _run_checks(program: Program, job: dict[str, Any]) -> None:
    program.start(job, checks="")
    seed(job["setup"] + job["checks"])
    space: dict[str, Any] = {"__name__": "checks"}
    exec(compile(job["setup"], "<setup>", "exec"), space)
    space[job["entry"]] = program
    exec(compile(job["checks"], CHECKS, "exec"), space)


def _check_together(program: Program, job: dict[str, Any]) -> tuple[str, str]:
    """The outcome of the checks that the program's process reports."""
    status, detail = program.start(job, job["checks"])["checked"]
    known = status if status in (PASS, WRONG, OOM) else EXCEPTION
    return known, str(detail)[:MAX_DETAIL]


def _failure(error: Exception, program: Program, checks: str) -> tuple[str, str]:
    if error is program.raised:
        return EXCEPTION, program.shown
    if isinstance(error, MemoryError):
        return OOM, "the checks ran out of memory"
    return WRONG, failed_line(error, checks) or describe(error)


def main(argument: str) -> None:
    """Entry point; `argument` is JSON: user ids and limits, nothing secret."""
    options = json.loads(argument)
    sys.path += options["paths"]
    hide_memory()
    if options["tmp_files"]:
        bound_files("/tmp", options["tmp_files"])
    new_keyring(options["keyctl"])
    filter_system_calls(options["filter"])
    calls, answers = os.pipe(), os.pipe()
    pid = os.fork()  # before the job is read: the program's memory is a copy of this one
    if pid == 0:
        _run_program(calls[0], answers[1], options)
    os.close(calls[0])  # with the program's ends open here, its death would close no pipe
    os.close(answers[1])
    switch_user(options["checker_uid"])
    limit(**options["limits"])  # what the program returns can make the checks take any amount
    # bubblewrap and unshare set this, but a change of user clears it: die with the sandbox
    die_with_parent()
    print(STARTED, flush=True)  # from here on, an early end is the program's fault
    result = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what checks print is no result
    job = json.load(sys.stdin)
    begin = time.monotonic()
    program = Program(pid, calls[1], answers[0], begin + job["timeout_s"])
    signal.signal(signal.SIGALRM, _alarm)
    # for checks that loop; half a second later than the deadline of the program's answers
    signal.setitimer(signal.ITIMER_REAL, job["timeout_s"] + 0.5)
    status, detail = check(program, job)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - begin
    os.write(result, f"{job['nonce']}{json.dumps([status, detail, seconds])}\n".encode("ascii"))
    os._exit(0)


def _run_program(calls: int, answers: int, options: dict[str, Any]) -> NoReturn:
    """Close the checker's files, drop its rights, set limits, then serve."""
    os.setsid()  # a signal to its own process group must not reach the checker
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # 0 carries the job, 1 the outcome
        os.dup2(nothing, standard)
    # move both pipes above all other files, then close everything else
    top = max(calls, answers, nothing) + 1
    os.dup2(calls, top)
    os.dup2(answers, top + 1)
    os.closerange(3, top)
    os.closerange(top + 2, 256)
    switch_user(options["program_uid"])
    limit(**options["limits"])
    serve(top, top + 1)


def _alarm(*_: Any) -> NoReturn:
    raise ChecksTooLong


if __name__ == "__main__":
    main(sys.argv[1])
