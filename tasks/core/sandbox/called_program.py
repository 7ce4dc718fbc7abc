"""The program as the checks see it: a function whose calls are answered by another process.

Runs inside the sandbox, so it imports the standard library only.
"""

import os
import signal
import sys
import time
from typing import Any, NoReturn

from tasks.core.sandbox.messages import (
    EXCEPTION,
    OOM,
    SYNTAX,
    TIMEOUT,
    describe,
    receive,
    send,
)
from tasks.core.sandbox.plain_data import (
    MAX_DETAIL,
    UNREADABLE,
    containers,
    pack,
    replace,
    unpack,
)


class ProgramFailed(BaseException):
    """The program failed or died; no Exception, so that `except Exception` in checks misses it."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


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

    def start(self, job: dict[str, Any], checks: str) -> dict[str, Any]:
        """Run the program's text and, in its process, `checks`; returns its first answer."""
        answer = self.ask({"program": job["program"], "entry": job["entry"], "checks": checks})
        if not (answer.get("ready") or "checked" in answer):
            self._fail(EXCEPTION, f"there is no function {job['entry']}")
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
        base = str(answer.get("base"))
        self.raised, self.shown = _make(name, base, detail), f"{name}: {detail}".removesuffix(": ")
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


def _make(name: str, base: str, text: str) -> Exception:
    """The program's exception, or the built-in one that it extends, for checks that expect it.

    StopIteration becomes a RuntimeError, as in a generator (PEP 479): it would end the loop of the
    checks that called the program, and `all(f(x) == x for x in values)` would hold.
    """
    kind = getattr(sys.modules["builtins"], base, None)
    ends_loops = base in ("StopIteration", "StopAsyncIteration")
    if (
        isinstance(kind, type)
        and issubclass(kind, Exception)
        and not ends_loops
        and base != "Exception"
    ):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and a few others need more arguments
            pass
    return RuntimeError(f"{name}: {text}")
