"""A checkpoint first, then the stop: on Ctrl-C, on SIGTERM, when time is up, in quiet hours."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tasks.core.system.quiet_hours import quiet_now

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)  # the last: the stage's time is up


class StopRequest:
    """Whether a stop was asked for; call it to know.

    Args:
        quiet_hours: In which a training pauses, "08:00-18:00"; None: never.

    Attributes:
        asked: A signal came.
    """

    def __init__(self, quiet_hours: str | None = None) -> None:
        self.asked = False
        self._quiet_hours = quiet_hours

    def __call__(self) -> bool:
        """True once one of `SIGNALS` came, and in quiet hours."""
        return self.asked or self.is_pause()

    def is_pause(self) -> bool:
        """Whether it is to go on by itself, after the quiet hours."""
        return not self.asked and quiet_now(self._quiet_hours) is not None


@contextmanager
def stop_on_signals(quiet_hours: str | None = None) -> Iterator[StopRequest]:
    """Turn `SIGNALS` into a `StopRequest` inside the block; then as before.

    A second Ctrl-C does not wait for the step to end. A signal handler can be set in the main
    thread only; in another one the request comes from quiet hours alone.
    """
    request = StopRequest(quiet_hours)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        if request.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.asked = True

    before = {n: signal.signal(n, ask) for n in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
