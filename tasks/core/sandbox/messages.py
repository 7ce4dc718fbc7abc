"""Messages between program and checker of the sandbox, and texts about errors.

Runs inside the sandbox, so it imports the standard library only.
"""

import json
import os
import select
import time
from typing import Any

from tasks.core.sandbox.plain_data import MAX_DETAIL

PASS, WRONG, EXCEPTION, SYNTAX = "pass", "wrong", "exception", "syntax"
TIMEOUT, OOM, INFRA, NOT_JUDGED = "timeout", "oom", "infra", "not judged"

MAX_MESSAGE = 4 << 20  # bytes of one returned value: an endless answer must not fill the checker
PROGRAM, CHECKS = "<program>", "<checks>"  # file names in tracebacks


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


def describe(error: BaseException) -> str:
    """The error on one line of bounded length."""
    return f"{type(error).__name__}: {text_of(error)}".removesuffix(": ")


def text_of(error: BaseException) -> str:
    """The error's text on one line of bounded length."""
    try:
        text = str(error)
    except Exception:  # a program's own __str__ may fail
        text = "(its text cannot be shown)"
    return " ".join(text[:MAX_DETAIL].split())


def failed_line(error: Exception, checks: str) -> str:
    """The line of the checks whose bare `assert` failed; "" for any other error."""
    if not isinstance(error, AssertionError) or error.args:
        return ""
    number, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == CHECKS:
            number = trace.tb_lineno
        trace = trace.tb_next
    return checks.splitlines()[number - 1].strip()[:MAX_DETAIL] if number else ""


def seed(text: str) -> None:
    """Make random numbers of a program or of checks the same in every run."""
    if "random" in text:  # the import takes a fifth of a run's time
        import random

        random.seed(0)
