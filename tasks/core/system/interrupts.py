"""Signals that ask a run to stop, handled like Ctrl-C: SIGTERM and SIGHUP.

systemd, `timeout` and a terminal that closes send them. An exception instead of the default action
lets the run report its state and end its child processes.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class TerminationError(KeyboardInterrupt):
    """A stop signal arrived; not an `Exception`, so that no library handles it as a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def handled(
    numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals inside the block; the handlers of before are set again after it."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Raise `TerminationError` for stop signals inside the block.

    Python sets signal handlers in the main thread only; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise TerminationError(number)

    with handled(STOP_SIGNALS, stop):
        yield
