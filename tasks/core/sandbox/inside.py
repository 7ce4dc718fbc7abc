"""Code inside the sandbox: a trusted checker and an untrusted program, in two processes.

In: one job as JSON on standard input. Out: the line "started", then, as the last line, the job's
nonce and an outcome.

The checker forks the program's process *before* it reads the job, so the program's memory never
holds the nonce or the checks. The program answers calls over a pipe, as plain data only (numbers,
text, lists, dicts ...). An object whose `__eq__` is always true, a patched builtin, an edited list
of results or a guessed outcome therefore cannot pass: the comparison happens in the checker, which
runs nothing that the program wrote. Exiting early (`sys.exit(0)`) is no answer.

This is one file of more than 250 lines because `runner` sends it as one compiled text: inside there
is a bare interpreter, without this project and without a path to it. It imports only the standard
library, and of that only what is needed, because most of a run's time is the interpreter's start.
"""

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

PASS, WRONG, EXCEPTION, SYNTAX = "pass", "wrong", "exception", "syntax"
TIMEOUT, OOM, INFRA = "timeout", "oom", "infra"
STARTED = "started"

MAX_MESSAGE = 4 << 20  # bytes of one returned value: an endless answer must not fill the checker
MAX_DETAIL = 300  # characters of an error's text
_SCALARS = (type(None), bool, str, float)
_SAFE_INT = 1 << 53  # larger ones travel as hex: Python refuses to parse decimals of 4,300 digits
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # of <sys/prctl.h>


class Opaque:
    """Replaces a returned object that is not plain data; equal only to itself."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return self.shown


class ProgramFailed(BaseException):
    """The program failed or died; no Exception, so that `except Exception` in checks misses it."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def pack(value: Any) -> Any:
    """Convert plain data to JSON types; anything else becomes its repr, marked as opaque.

    JSON has no tuples, sets, bytes or keys other than text: each such value becomes a dict with one
    key, the name of its type. pickle would run code of the program in the checker.
    """
    if type(value) in _SCALARS:
        return value
    for kind, packed in _PACKED:
        if isinstance(value, kind):
            return packed(value)
    return {"opaque": repr(value)[:MAX_DETAIL]}


def _number(value: int) -> Any:
    number = int(value)
    return number if abs(number) < _SAFE_INT else {"int": hex(number)}


def _items(name: str) -> Callable[[Any], Any]:
    return lambda values: {name: [pack(v) for v in values]}


# subclasses become their base class (a Counter is a dict), without the methods they override
_PACKED: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, _number),
    (float, float),
    (str, "".join),
    (list, lambda values: [pack(v) for v in values]),
    (tuple, _items("tuple")),
    (set, _items("set")),
    (frozenset, _items("frozenset")),
    (dict, lambda values: {"dict": [[pack(k), pack(v)] for k, v in values.items()]}),
    (complex, lambda value: {"complex": [value.real, value.imag]}),
    (bytes, lambda value: {"bytes": value.hex()}),
    (bytearray, lambda value: {"bytes": value.hex()}),
    (range, lambda value: {"range": [value.start, value.stop, value.step]}),
)


def unpack(value: Any) -> Any:
    """Invert `pack`; raises ValueError, TypeError or KeyError for anything else."""
    if isinstance(value, list):
        return [unpack(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    return _UNPACKED[kind](inner)


_UNPACKED: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda values: tuple(unpack(v) for v in values),
    "set": lambda values: {unpack(v) for v in values},
    "frozenset": lambda values: frozenset(unpack(v) for v in values),
    "dict": lambda items: {unpack(k): unpack(v) for k, v in items},
    "int": lambda text: int(text, 16),
    "bytes": bytes.fromhex,
    "complex": lambda pair: complex(*pair),
    "range": lambda bounds: range(*bounds),
    "opaque": lambda shown: Opaque(str(shown)),
}


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


class ChecksTooLong(BaseException):
    """The checks themselves did not finish in time."""


# --- the program's process -----------------------------------------------------------------


def serve(calls: int, answers: int) -> NoReturn:
    """Run the untrusted program and answer calls of its function until the pipe is closed."""
    code: Any = None
    spare = bytearray(2 << 20)  # freed after a MemoryError, so that reporting it has memory
    try:
        job = receive(calls)
        _seed(job["program"])
        code = compile(job["program"], "<program>", "exec")
        space: dict[str, Any] = {"__name__": "program"}
        exec(code, space)
        entry = space.get(job["entry"])
        send(answers, {"ready": callable(entry)})
        while (call := receive(calls)) is not None:
            arguments, named = unpack(call)
            send(answers, _answer(entry, arguments, named))
    except BaseException as error:  # SystemExit, too: exiting is a failure
        del spare
        send(answers, {"status": _status(error, code is None), "detail": describe(error)})
    os._exit(0)  # skips exit handlers, which the program may have registered


def _answer(entry: Any, arguments: Any, named: Any) -> dict[str, Any]:
    try:
        return {"value": pack(entry(*arguments, **named))}
    except Exception as error:
        return {"raised": type(error).__name__, "detail": _text(error)}


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
        answer = self.ask(pack((arguments, named)))
        if "raised" in answer:
            name, detail = (str(answer.get(part))[:MAX_DETAIL] for part in ("raised", "detail"))
            if name == "MemoryError":
                self._fail(OOM, detail)
            self.raised, self.shown = _make(name, detail), f"{name}: {detail}".removesuffix(": ")
            raise self.raised
        try:
            return unpack(answer["value"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._fail(EXCEPTION, f"unreadable answer: {describe(error)}")

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
    """The program's exception, if it is a built-in one, for checks that expect it."""
    kind = getattr(sys.modules["builtins"], name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and a few others need more arguments
            pass
    return RuntimeError(f"{name}: {text}")


def check(program: Program, job: dict[str, Any]) -> tuple[str, str]:
    """Run the job's checks against the program; returns status and detail."""
    name = job["entry"]
    try:
        ready = program.ask({"program": job["program"], "entry": name})
        if not ready.get("ready"):
            return EXCEPTION, f"there is no function {name}"
        _seed(job["setup"] + job["checks"])
        space: dict[str, Any] = {"__name__": "checks"}
        exec(compile(job["setup"], "<setup>", "exec"), space)
        space[name] = program
        exec(compile(job["checks"], "<checks>", "exec"), space)
    except ProgramFailed as failed:
        return failed.status, failed.detail
    except ChecksTooLong:
        return TIMEOUT, "the checks ran out of time"
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
        if trace.tb_frame.f_code.co_filename == "<checks>":
            number = trace.tb_lineno
        trace = trace.tb_next
    return checks.splitlines()[number - 1].strip()[:MAX_DETAIL] if number else ""


def limit(memory_mib: int, cpu_s: int, processes: int, file_mib: int) -> None:
    """Lower this process's limits for good (hard limits, too); its children inherit them."""
    wanted = {
        resource.RLIMIT_AS: memory_mib << 20,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_NPROC: processes,  # fork bombs; counts all processes of the user id
        resource.RLIMIT_FSIZE: file_mib << 20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        free = hard == resource.RLIM_INFINITY
        soft = value if free else min(value, hard)
        # the soft CPU limit sends SIGXCPU, the hard one a second later SIGKILL: with both equal, a
        # timeout would look like a kill for memory
        top = soft + 1 if name == resource.RLIMIT_CPU and free else soft
        resource.setrlimit(name, (soft, top))


def switch_user(uid: int) -> None:
    """Change to user and group `uid` for good; 0: keep the present user."""
    if uid:
        os.setgroups([])  # first, as all three need root's rights
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def main(argument: str) -> None:
    """Entry point; `argument` is JSON: user ids and limits, nothing secret."""
    import ctypes

    options = json.loads(argument)
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # no ptrace, no /proc/<pid>/mem by the program's process
    calls, answers = os.pipe(), os.pipe()
    pid = os.fork()  # before the job is read: the program's memory is a copy of this one
    if pid == 0:
        _run_program(calls[0], answers[1], options)
    os.close(calls[0])  # with the program's ends open here, its death would close no pipe
    os.close(answers[1])
    switch_user(options["checker_uid"])
    # bubblewrap and unshare set this, but a change of user clears it: die with the sandbox
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
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
