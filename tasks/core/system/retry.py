"""Asking a hub again after the network failed: a few times, told each time.

Only what passes by itself is tried again: no connection, a time-out, a server that is overloaded.
An answer (unknown, gated, wrong) is an answer, and a lack of memory stays one.
"""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tasks.core.progress import say

T = TypeVar("T")
RETRIES = 2
FIRST_WAIT_S = 5.0  # then twice as long each time
PASSING = (408, 429, 500, 502, 503, 504)  # HTTP


def retried(action: Callable[[], T], what: str, retries: int = RETRIES) -> T:
    """The result of `action`, tried again after a failure that may pass by itself.

    Args:
        action: May be called several times.
        what: For the message, such as "owner/name".
        retries: Times that it is tried again.
    """
    for again in range(1, retries + 1):
        try:
            return action()
        except Exception as error:
            if not is_passing(error):
                raise
            wait = FIRST_WAIT_S * 2 ** (again - 1)
            say(f"{what}: {_line(error)}; trying again in {wait:g} s ({again} of {retries})")
            time.sleep(wait)
    return action()


def is_passing(error: BaseException) -> bool:
    """Whether a failure, or what it came from, is one of the network."""
    chain = list(_causes(error))
    if any(isinstance(e, MemoryError) or type(e).__name__ == "OfflineModeIsEnabled" for e in chain):
        return False  # offline because somebody wants it so
    answers = [getattr(getattr(e, "response", None), "status_code", None) for e in chain]
    codes = [code for code in answers if isinstance(code, int)]
    if codes:
        return any(code in PASSING for code in codes)
    # httpx has its own classes, which are no ConnectionError
    return any(
        isinstance(e, (ConnectionError, TimeoutError))
        or any(kind.__name__ == "TransportError" for kind in type(e).__mro__)
        for e in chain
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:150]
