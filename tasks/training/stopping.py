"""SIGTERM asks for a checkpoint first: nothing of the run is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether a stop was asked for; call it to know."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """True once SIGTERM came."""
        return self.asked


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Turn SIGTERM into a `StopRequest` inside the block; then as before.

    A signal handler can be set in the main thread only; in another one the request never comes and
    SIGTERM does what it did before.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        request.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
