"""The program's process: runs the untrusted program and answers calls of its function.

Runs inside the sandbox, so it imports the standard library only.
"""

import os
import sys
from functools import wraps
from types import FunctionType, ModuleType
from typing import Any, NoReturn

from tasks.core.sandbox.messages import (
    CHECKS,
    EXCEPTION,
    OOM,
    PASS,
    PROGRAM,
    SYNTAX,
    WRONG,
    describe,
    failed_line,
    receive,
    seed,
    send,
    text_of,
)
from tasks.core.sandbox.plain_data import containers, contents, pack, unpack


def serve(calls: int, answers: int) -> NoReturn:
    """Run the untrusted program and answer calls of its function until the pipe is closed."""
    code: Any = None
    spare = bytearray(2 << 20)  # freed after a MemoryError, so that reporting it has memory
    try:
        job = receive(calls)
        seed(job["program"] + job["checks"])
        code = compile(job["program"], PROGRAM, "exec")
        # a real module: dataclasses and pickle look theirs up by name
        module = sys.modules["program"] = ModuleType("program")
        exec(code, vars(module))
        entry = vars(module).get(job["entry"])
        ready = callable(entry)
        if job["checks"] and ready:
            if isinstance(entry, FunctionType):
                setattr(module, job["entry"], _ending_no_loop(entry))
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
        built_in = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        names = {"raised": type(error).__name__, "base": next(built_in)}
        answer = {**names, "detail": text_of(error)}
    after = ((at, contents(container, known)) for at, container in enumerate(given))
    changed = [[at, content] for at, content in after if content != before[at]]
    return {**answer, "changed": changed} if changed else answer


def _ending_no_loop(entry: FunctionType) -> Any:
    """The function for checks that run together with it; see `called_program._make`."""

    @wraps(entry)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return entry(*arguments, **named)
        except (StopIteration, StopAsyncIteration) as error:
            text = f"{type(error).__name__}: {text_of(error)}".removesuffix(": ")
            raise RuntimeError(text).with_traceback(error.__traceback__) from None

    return call


def _checked(space: dict[str, Any], checks: str) -> list[str]:
    """Status and detail of checks that run together with the program."""
    try:
        exec(compile(checks, CHECKS, "exec"), space)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        by_program = trace is not None and trace.tb_frame.f_code.co_filename == PROGRAM
        if isinstance(error, MemoryError):
            return [OOM, describe(error)]
        if by_program:
            return [EXCEPTION, describe(error)]
        return [WRONG, failed_line(error, checks) or describe(error)]
    return [PASS, ""]


def _status(error: BaseException, compiling: bool) -> str:
    if isinstance(error, MemoryError):
        return OOM
    # compile() also raises ValueError for null bytes and lone surrogates
    return SYNTAX if compiling and isinstance(error, (SyntaxError, ValueError)) else EXCEPTION
