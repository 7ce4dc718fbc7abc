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

`runner` sends this file and the two that it imports as one compiled text, because inside there is
a bare interpreter, without this project and without a path to it. All three import only the
standard library, and of that only what is needed, because most of a run's time is the
interpreter's start.
"""

import json
import os
import select
import signal
import sys
import time
from types import ModuleType
from typing import Any, NoReturn

from tasks.core.sandbox.confinement import (
    bound_files,
    die_with_parent,
    filter_system_calls,
    hide_memory,
    limit,
    new_keyring,
    switch_user,
)
from tasks.core.sandbox.plain_data import (
    MAX_DETAIL,
    UNREADABLE,
    HandedOver,
    containers,
    contents,
    pack,
    replace,
    unpack,
)

PASS, WRONG, EXCEPTION, SYNTAX = "pass", "wrong", "exception", "syntax"
TIMEOUT, OOM, INFRA, NOT_JUDGED = "timeout", "oom", "infra", "not judged"
STARTED = "started"

MAX_MESSAGE = 4 << 20  # bytes of one returned value: an endless answer must not fill the checker


class ProgramFailed(BaseException):
    """The program failed or died; no Exception, so that `except Exception` in checks misses it."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def send(pipe: int, message: Any) -> None:
    """Write one message: its length as 10 digits, then JSON."""
    data = json.dumps(message).encode("ascii")
    data = b"%010d" % len(data) + data
    while data:
        data = data[os.write(pipe, data) :]  # a pipe takes 64 KiB at a time


def receive(pipe: int, deadline: float | None = None) -> Any:
    """Read one message; None at the end of the pipe.

    Raises:
        TimeoutError: No complete message before `deadline` (monotonic seconds).
        ValueError: Not a message, or one over `MAX_MESSAGE`.
    """
    head = _read(pipe, 10, deadline)
    if len(head) < 10:
        return None
    size = int(head)
    if not 0 < size <= MAX_MESSAGE:
        raise ValueError(f"a value of {size} bytes is over the limit of {MAX_MESSAGE}")
    body = _read(pipe, size, deadline)
    return json.loads(body) if len(body) == size else None


def _read(pipe: int, size: int, deadline: float | None) -> bytes:
    data = b""
    while len(data) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
        piece = os.read(pipe, min(size - len(data), 1 << 16))
        if not piece:
            break
        data += piece
    return data


_PROGRAM, _CHECKS = "<program>", "<checks>"  # file names in tracebacks


class ChecksTooLong(BaseException):
    """The checks themselves did not finish in time."""


# --- the program's process -----------------------------------------------------------------


def serve(calls: int, answers: int) -> NoReturn:
    """Run the untrusted program and answer calls of its function until the pipe is closed."""
    code: Any = None
    spare = bytearray(2 << 20)  # freed after a MemoryError, so that reporting it has memory
    try:
        job = receive(calls)
        _seed(job["program"] + job["checks"])
        code = compile(job["program"], _PROGRAM, "exec")
        # a real module: dataclasses and pickle look theirs up by name
        module = sys.modules["program"] = ModuleType("program")
        exec(code, vars(module))
        entry = vars(module).get(job["entry"])
        ready = callable(entry)
        if job["checks"] and ready:
            send(answers, {"checked": _checked(vars(module), job["checks"])})
        send(answers, {"ready": ready})
        while (call := receive(calls)) is not None:
            send(answers, _answer(entry, unpack(call)))
    except BaseException as error:  # SystemExit, too: exiting is a failure
        del spare
        send(answers, {"status": _status(error, code is None), "detail": describe(error)})
    os._exit(0)  # skips exit handlers, which the program may have registered


def _answer(entry: Any, call: Any) -> dict[str, Any]:
    """What a call returned or raised, and the arguments that it changed."""
    given = containers(call)
    known = {id(container): at for at, container in enumerate(given)}
    before = [contents(container, known) for container in given]
    arguments, named = call
    try:
        answer = {"value": pack(entry(*arguments, **named), known)}
    except Exception as error:
        answer = {"raised": type(error).__name__, "detail": _text(error)}
    after = ((at, contents(container, known)) for at, container in enumerate(given))
    changed = [[at, content] for at, content in after if content != before[at]]
    return {**answer, "changed": changed} if changed else answer


def _checked(space: dict[str, Any], checks: str) -> list[str]:
    """Status and detail of checks that run together with the program."""
    try:
        exec(compile(checks, _CHECKS, "exec"), space)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        by_program = trace is not None and trace.tb_frame.f_code.co_filename == _PROGRAM
        if isinstance(error, MemoryError):
            return [OOM, describe(error)]
        if by_program:
            return [EXCEPTION, describe(error)]
        return [WRONG, _failed_line(error, checks) or describe(error)]
    return [PASS, ""]


def _status(error: BaseException, compiling: bool) -> str:
    if isinstance(error, MemoryError):
        return OOM
    # compile() also raises ValueError for null bytes and lone surrogates
    return SYNTAX if compiling and isinstance(error, (SyntaxError, ValueError)) else EXCEPTION


def describe(error: BaseException) -> str:
    """The error on one line of bounded length."""
    return f"{type(error).__name__}: {_text(error)}".removesuffix(": ")


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a program's own __str__ may fail
        text = "(its text cannot be shown)"
    return " ".join(text[:MAX_DETAIL].split())


def _seed(text: str) -> None:
    """Make random numbers of a program or of checks the same in every run."""
    if "random" in text:  # the import takes a fifth of a run's time
        import random

        random.seed(0)


# --- the checker's process -----------------------------------------------------------------


class Program:
    """The program as seen by the checks: calling it calls the program's entry function.

    Attributes:
        raised: The exception last passed to the checks, to tell it from one of their own.
        shown: That exception as the program raised it, as one line.
        failed: Set once the program has failed; final, whatever the checks catch.
    """

    def __init__(self, pid: int, calls: int, answers: int, deadline: float) -> None:
        self.pid, self.calls, self.answers, self.deadline = pid, calls, answers, deadline
        self.raised: Exception | None = None
        self.shown = ""
        self.failed: ProgramFailed | None = None

    def _fail(self, status: str, detail: str) -> NoReturn:
        self.failed = ProgramFailed(status, detail)
        raise self.failed

    def ask(self, message: Any) -> dict[str, Any]:
        """Send one message and wait for the answer; raises ProgramFailed if there is none."""
        try:
            send(self.calls, message)
            answer = receive(self.answers, self.deadline)
        except TimeoutError:
            self._fail(TIMEOUT, "ran out of time")
        except BrokenPipeError:
            answer = None
        except (ValueError, MemoryError, RecursionError) as error:
            self._fail(EXCEPTION, f"unreadable answer: {describe(error)}")
        if not isinstance(answer, dict):
            self._fail(*self._death())
        if "status" in answer:
            # the program can write to this pipe itself: of its claims, only failures count
            status = answer["status"] if answer["status"] in (OOM, SYNTAX) else EXCEPTION
            self._fail(status, str(answer.get("detail"))[:MAX_DETAIL])
        return answer

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Return what the program's function returns; raise the built-in exception it raises."""
        call = (arguments, named)
        answer = self.ask(pack(call, strict=True))
        given = containers(call)
        try:
            for at, content in answer.get("changed", ()):
                replace(given[at], unpack(content, given))
            if "raised" not in answer:
                return unpack(answer["value"], given)
        except UNREADABLE as error:
            self._fail(EXCEPTION, f"unreadable answer: {describe(error)}")
        name, detail = (str(answer.get(part))[:MAX_DETAIL] for part in ("raised", "detail"))
        if name == "MemoryError":
            self._fail(OOM, detail)
        self.raised, self.shown = _make(name, detail), f"{name}: {detail}".removesuffix(": ")
        raise self.raised

    def _death(self) -> tuple[str, str]:
        """Status and detail of a process that ended without an answer."""
        end = time.monotonic() + 1  # the pipe closes a moment before the process can be waited for
        while (gone := os.waitpid(self.pid, os.WNOHANG))[0] == 0 and time.monotonic() < end:
            time.sleep(0.005)
        number = os.WTERMSIG(gone[1]) if gone[0] and os.WIFSIGNALED(gone[1]) else 0
        if number == signal.SIGXCPU:
            return TIMEOUT, "used up its CPU time"
        if number == signal.SIGKILL:
            return OOM, "killed, most likely for its memory"
        if number:
            return EXCEPTION, f"died of signal {number}"
        return EXCEPTION, "ended before the checks did"


def _make(name: str, text: str) -> Exception:
    """The program's exception, if it is a built-in one, for checks that expect it.

    StopIteration becomes a RuntimeError, as in a generator (PEP 479): it would end the loop of the
    checks that called the program, and `all(f(x) == x for x in values)` would hold.
    """
    kind = getattr(sys.modules["builtins"], name, None)
    ends_loops = name in ("StopIteration", "StopAsyncIteration")
    if isinstance(kind, type) and issubclass(kind, Exception) and not ends_loops:
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and a few others need more arguments
            pass
    return RuntimeError(f"{name}: {text}")


def check(program: Program, job: dict[str, Any]) -> tuple[str, str]:
    """Run the job's checks against the program; returns status and detail."""
    name = job["entry"]
    together = job["checks"] if job["together"] else ""
    try:
        answer = program.ask({"program": job["program"], "entry": name, "checks": together})
        if "checked" in answer:
            status, detail = answer["checked"]
            return (status if status in (PASS, WRONG, OOM) else EXCEPTION), str(detail)[:MAX_DETAIL]
        if not answer.get("ready"):
            return EXCEPTION, f"there is no function {name}"
        _seed(job["setup"] + job["checks"])
        space: dict[str, Any] = {"__name__": "checks"}
        exec(compile(job["setup"], "<setup>", "exec"), space)
        space[name] = program
        exec(compile(job["checks"], _CHECKS, "exec"), space)
    except ProgramFailed as failed:
        return failed.status, failed.detail
    except ChecksTooLong:
        return TIMEOUT, "the checks ran out of time"
    except HandedOver as error:
        return NOT_JUDGED, f"the test hands over a {error}"
    except MemoryError:
        return OOM, "the checks ran out of memory"
    except Exception as error:
        if error is program.raised:
            return EXCEPTION, program.shown
        return WRONG, _failed_line(error, job["checks"]) or describe(error)
    # checks that catch every exception end here even if the program has failed
    return (program.failed.status, program.failed.detail) if program.failed else (PASS, "")


def _failed_line(error: Exception, checks: str) -> str:
    """The line of the checks whose bare `assert` failed; "" for any other error."""
    if not isinstance(error, AssertionError) or error.args:
        return ""
    number, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _CHECKS:
            number = trace.tb_lineno
        trace = trace.tb_next
    return checks.splitlines()[number - 1].strip()[:MAX_DETAIL] if number else ""


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
    job = json.load(sys.stdin)
    begin = time.monotonic()
    program = Program(pid, calls[1], answers[0], begin + job["timeout_s"])
    signal.signal(signal.SIGALRM, _alarm)
    # for checks that loop; half a second later than the deadline of the program's answers
    signal.setitimer(signal.ITIMER_REAL, job["timeout_s"] + 0.5)
    status, detail = check(program, job)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - begin
    print(job["nonce"] + json.dumps([status, detail, seconds]), flush=True)
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
