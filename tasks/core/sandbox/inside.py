"""What runs inside the sandbox: a trusted checker and an untrusted program, in two processes.

In: one job as JSON on standard input. Out: the line "started", then, as the last line, the job's
nonce and a verdict.

The checker forks the program's process *before* it reads the job, so the program's memory never
holds the nonce or the checks. The program answers calls over a pipe, and only plain data travels
(numbers, text, lists, dicts ...): an object whose `__eq__` is always true, a patched builtin, an
edited list of results or a guessed verdict cannot pass, because the comparison happens where the
program has no hand. Leaving early (`sys.exit(0)`) is no answer.

This file is handed to a bare interpreter as one piece of code, hence its length: it imports the
standard library alone, and only what is needed, since its start-up is most of what a run costs.
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

MAX_MESSAGE = 4 << 20  # bytes of one value that the program may return
MAX_DETAIL = 300  # characters of an error's text
_SCALARS = (type(None), bool, str, float)
_SAFE_INT = 1 << 53
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


class Opaque:
    """Stands for a returned object that is no plain data; equal to nothing."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return self.shown


class ProgramFailed(BaseException):
    """The program's process gave a verdict or died; checks must not catch it as an Exception."""

    def __init__(self, verdict: str, detail: str) -> None:
        super().__init__(detail)
        self.verdict, self.detail = verdict, detail


def pack(value: Any) -> Any:
    """Plain data -> JSON-ready; what is not plain data becomes its repr, marked as opaque."""
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


# subclasses too: a Counter comes as the dict that it is
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
    """What `pack` wrote; ValueError, TypeError or KeyError for anything that it did not."""
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
    """Write one message: its length on 10 bytes, then JSON."""
    data = json.dumps(message).encode("ascii")
    data = b"%010d" % len(data) + data
    while data:
        data = data[os.write(pipe, data) :]


def receive(pipe: int, deadline: float | None = None) -> Any:
    """Read one message; None at the end of the pipe.

    Raises:
        TimeoutError: Nothing whole came before `deadline` (monotonic seconds).
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
    """The checks themselves did not end in time."""


# --- the program's process -----------------------------------------------------------------


def serve(calls: int, answers: int) -> NoReturn:
    """Run the untrusted program and answer calls of its function until the pipe is closed."""
    code: Any = None
    spare = bytearray(2 << 20)  # so that there is memory to tell that there is none
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
    except (
        BaseException
    ) as error:  # whatever the program raises, SystemExit included, is its verdict
        del spare
        send(answers, {"verdict": _judge(error, code is None), "detail": describe(error)})
    os._exit(0)


def _answer(entry: Any, arguments: Any, named: Any) -> dict[str, Any]:
    try:
        return {"value": pack(entry(*arguments, **named))}
    except Exception as error:
        return {"raised": type(error).__name__, "detail": _text(error)}


def _judge(error: BaseException, compiling: bool) -> str:
    if isinstance(error, MemoryError):
        return OOM
    # compile() also raises ValueError for null bytes and lone surrogates
    return SYNTAX if compiling and isinstance(error, (SyntaxError, ValueError)) else EXCEPTION


def describe(error: BaseException) -> str:
    """The error on one bounded line."""
    return f"{type(error).__name__}: {_text(error)}".removesuffix(": ")


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a program's own __str__ may fail
        text = "(its text cannot be shown)"
    return " ".join(text[:MAX_DETAIL].split())


def _seed(text: str) -> None:
    """Numbers drawn by a program or by checks are the same in every run."""
    if "random" in text:  # the import costs a fifth of a run
        import random

        random.seed(0)


# --- the checker's process -----------------------------------------------------------------


class Program:
    """The checker's end of the pipes; calling it calls the program's entry function."""

    def __init__(self, pid: int, calls: int, answers: int, deadline: float) -> None:
        self.pid, self.calls, self.answers, self.deadline = pid, calls, answers, deadline
        self.raised: Exception | None = None
        self.shown = ""  # the program's exception as it was, not as it was made anew
        self.failed: ProgramFailed | None = None

    def ask(self, message: Any) -> dict[str, Any]:
        """Send one message and wait for the answer; ProgramFailed where there is none."""
        try:
            return self._ask(message)
        except ProgramFailed as failed:
            self.failed = failed  # stays the verdict, whatever the checks catch
            raise

    def _ask(self, message: Any) -> dict[str, Any]:
        try:
            send(self.calls, message)
            answer = receive(self.answers, self.deadline)
        except TimeoutError:
            raise ProgramFailed(TIMEOUT, "ran out of time") from None
        except BrokenPipeError:
            answer = None
        except (ValueError, MemoryError, RecursionError) as error:
            raise ProgramFailed(EXCEPTION, f"unreadable answer: {describe(error)}") from None
        if not isinstance(answer, dict):
            raise ProgramFailed(*self._death())
        if "verdict" in answer:
            verdict = answer["verdict"] if answer["verdict"] in (OOM, SYNTAX) else EXCEPTION
            raise ProgramFailed(verdict, str(answer.get("detail"))[:MAX_DETAIL])
        return answer

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What the program's function returns; raises the built-in exception that it raised."""
        answer = self.ask(pack((arguments, named)))
        if "raised" in answer:
            detail = str(answer.get("detail"))[:MAX_DETAIL]
            if answer["raised"] == "MemoryError":
                self.failed = ProgramFailed(OOM, detail)
                raise self.failed
            name = str(answer["raised"])[:MAX_DETAIL]
            self.raised, self.shown = _make(name, detail), f"{name}: {detail}".removesuffix(": ")
            raise self.raised
        try:
            return unpack(answer["value"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self.failed = ProgramFailed(EXCEPTION, f"unreadable answer: {describe(error)}")
            raise self.failed from None

    def _death(self) -> tuple[str, str]:
        """Verdict for a process that went away without an answer."""
        end = time.monotonic() + 1
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
    """The program's exception, where it is a built-in one, for checks that expect it."""
    kind = getattr(sys.modules["builtins"], name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and a few others want more arguments
            pass
    return RuntimeError(f"{name}: {text}")


def check(program: Program, job: dict[str, Any]) -> tuple[str, str]:
    """Run the job's checks against the program."""
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
        return failed.verdict, failed.detail
    except ChecksTooLong:
        return TIMEOUT, "the checks ran out of time"
    except Exception as error:
        if error is program.raised:
            return EXCEPTION, program.shown
        return WRONG, _failed_line(error, job["checks"]) or describe(error)
    return (program.failed.verdict, program.failed.detail) if program.failed else (PASS, "")


def _failed_line(error: Exception, checks: str) -> str:
    """The statement of the checks that a bare `assert` failed at; "" for any other error."""
    if not isinstance(error, AssertionError) or error.args:
        return ""
    number, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<checks>":
            number = trace.tb_lineno
        trace = trace.tb_next
    return checks.splitlines()[number - 1].strip()[:MAX_DETAIL] if number else ""


def limit(memory_mib: int, cpu_s: int, processes: int, file_mib: int) -> None:
    """Lower this process's limits for good; its children inherit them."""
    wanted = {
        resource.RLIMIT_AS: memory_mib << 20,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_FSIZE: file_mib << 20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        free = hard == resource.RLIM_INFINITY
        soft = value if free else min(value, hard)
        # a second between soft and hard: CPU time ends in SIGXCPU and can be told from a kill
        top = soft + 1 if name == resource.RLIMIT_CPU and free else soft
        resource.setrlimit(name, (soft, top))


def become(uid: int) -> None:
    """Give up root for the user and group `uid`; 0: stay who we are."""
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def main(argument: str) -> None:
    """Entry of the sandboxed interpreter; `argument` is JSON: uids and limits, nothing secret."""
    import ctypes
    import typing  # noqa: F401  most programs import it: once before the fork is cheaper than twice after

    options = json.loads(argument)
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # no ptrace, no /proc/<pid>/mem by the program's process
    calls, answers = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_the_program(calls[0], answers[1], options)
    os.close(calls[0])
    os.close(answers[1])
    become(options["checker_uid"])
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user cleared it
    print(STARTED, flush=True)
    job = json.load(sys.stdin)
    begin = time.monotonic()
    program = Program(pid, calls[1], answers[0], begin + job["timeout_s"])
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, job["timeout_s"] + 0.5)  # for checks that hang themselves
    verdict, detail = check(program, job)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - begin
    print(job["nonce"] + json.dumps([verdict, detail, seconds]), flush=True)
    os._exit(0)


def _be_the_program(calls: int, answers: int, options: dict[str, Any]) -> NoReturn:
    """Give up every file of the checker, its rights and most of the machine; then serve."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    top = max(calls, answers, nothing) + 1
    os.dup2(calls, top)
    os.dup2(answers, top + 1)
    os.closerange(3, top)
    os.closerange(top + 2, 256)
    become(options["program_uid"])
    limit(**options["limits"])
    serve(top, top + 1)


def _alarm(*_: Any) -> NoReturn:
    raise ChecksTooLong


if __name__ == "__main__":
    main(sys.argv[1])
