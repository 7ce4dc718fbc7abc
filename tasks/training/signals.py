"""Turns Ctrl-C, SIGTERM, SIGHUP, the time limit and quiet hours into a stop with a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tasks.core.system.interrupts import STOP_SIGNALS, current_handler, handled
from tasks.core.system.quiet_hours import quiet_now

# SIGALRM: the stage's time limit
SIGNALS = (*STOP_SIGNALS, signal.SIGALRM)


class StopRequest:
    """Whether a stop is requested; an instance is called to check.

    Args:
        quiet_hours: Hours without training, such as "08:00-18:00"; None: none.

    Attributes:
        signaled: One of `SIGNALS` arrived.
    """

    def __init__(self, quiet_hours: str | None = None) -> None:
        self.signaled = False
        self._quiet_hours = quiet_hours

    def __call__(self) -> bool:
        """True after one of `SIGNALS`, and in quiet hours."""
        return self.signaled or quiet_now(self._quiet_hours) is not None


@contextmanager
def stop_on_signals(quiet_hours: str | None = None) -> Iterator[StopRequest]:
    """Turn `SIGNALS` into a `StopRequest` inside the block; restores the handlers afterwards.

    A second Ctrl-C interrupts at once. A signal during the last step or the validation after it
    stops the command after the block: that step's checkpoint exists. Python sets signal handlers in
    the main thread only; in another thread the request follows from quiet hours alone.
    """
    request = StopRequest(quiet_hours)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    last = 0

    def request_stop(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        if request.signaled and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signaled, last = True, number

    with handled(SIGNALS, request_stop):
        yield request
    if last in STOP_SIGNALS and current_handler():
        signal.raise_signal(last)
