"""Retries of hub requests after network failures: a few times, each one logged.

Only failures that may be temporary are retried: no connection, a timeout, an overloaded server. Not
an answer of the hub (not found, gated), and not a lack of memory.
"""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tasks.core.progress import say
from tasks.core.system.escape_text import first_line

T = TypeVar("T")
RETRIES = 2
FIRST_WAIT_S = 5.0  # then twice as long each time
TEMPORARY = (408, 429, 500, 502, 503, 504)  # HTTP


def retried(action: Callable[[], T], what: str, retries: int = RETRIES) -> T:
    """The result of `action`, retried after failures that may be temporary.

    Args:
        action: A function that may be called several times.
        what: Subject of the log message, such as "owner/name".
        retries: Number of calls after the first one.
    """
    for attempt in range(1, retries + 1):
        try:
            return action()
        except Exception as error:  # errors of the network have no common class
            if not is_temporary(error):
                raise
            wait = FIRST_WAIT_S * 2 ** (attempt - 1)
            say(f"{what}: {first_line(error)}; trying again in {wait:g} s ({attempt} of {retries})")
            time.sleep(wait)
    return action()


def is_temporary(error: BaseException) -> bool:
    """Whether an error or one of its causes is a network failure that may be temporary."""
    chain = list(_causes(error))
    if any(isinstance(e, MemoryError) or type(e).__name__ == "OfflineModeIsEnabled" for e in chain):
        return False  # offline mode is set by the user
    answers = [getattr(getattr(e, "response", None), "status_code", None) for e in chain]
    codes = [code for code in answers if isinstance(code, int)]
    if codes:
        return any(code in TEMPORARY for code in codes)
    # the errors of httpx do not derive from ConnectionError
    return any(
        isinstance(e, (ConnectionError, TimeoutError))
        or any(kind.__name__ == "TransportError" for kind in type(e).__mro__)
        for e in chain
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
