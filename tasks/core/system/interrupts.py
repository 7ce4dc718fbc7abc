"""Stop signals of a run: Ctrl-C, SIGTERM and SIGHUP, all handled alike.

systemd, `timeout` and a terminal that closes send the latter two. An exception instead of the
default action lets the run report its state and end its child processes. Ctrl-C needs a handler of
its own, too: asyncio replaces Python's, and can lose the interrupt when its task ends at the same
moment.
"""

import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PAUSE_S = 0.05  # before a discarded exception is raised again
SHUTDOWN_S = 30.0  # a run ends within this time after a signal


class TerminationError(KeyboardInterrupt):
    """A stop signal arrived; not an `Exception`, so that no library handles it as a failure.

    Args:
        number: The signal.
        released: Called when nothing refers to the exception any longer.
    """

    def __init__(self, number: int, released: Callable[[], None]) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        weakref.finalize(self, released).atexit = False


class StopHandler:
    """Signal handler that raises `TerminationError` once, so that a shutdown is not interrupted.

    It raises again if code discarded the exception (a callback from C, a `__del__`, an `except:`
    around an import), and for a signal that arrives when the shutdown takes longer than expected.

    Attributes:
        number: The signal that was raised; None: none yet.
        settled: The end of the command is decided; further signals change nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.settled = False
        self._raised_at = -SHUTDOWN_S

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Raise `TerminationError`, unless a shutdown is going on."""
        if self.settled or time.monotonic() - self._raised_at < SHUTDOWN_S:
            return
        self._raised_at = time.monotonic()
        self.number = self.number or number
        # not in a variable, which the traceback would keep alive in a cycle
        raise TerminationError(self.number, self._released)

    def _released(self) -> None:
        """Nothing refers to the exception any longer; before `settle`, it was discarded."""
        if not self.settled:
            # in a thread: this may run inside a destructor, which discards what is raised in it
            timer = threading.Timer(PAUSE_S, self._raise_again)
            timer.daemon = True
            timer.start()

    def _raise_again(self) -> None:
        installed = [n for n in STOP_SIGNALS if signal.getsignal(n) is self]
        if installed and not self.settled:
            self._raised_at = -SHUTDOWN_S
            signal.pthread_kill(threading.main_thread().ident or 0, installed[0])


@contextmanager
def handled(
    numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals inside the block; the handlers of before are set again after it.

    A signal that is ignored stays ignored: `nohup` and background jobs of scripts rely on it.
    """
    before = {n: signal.getsignal(n) for n in numbers}
    taken = {n: former for n, former in before.items() if former != signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in taken.items():
            signal.signal(number, former)


def current_handler() -> StopHandler | None:
    """The handler that this process has installed, if any."""
    set_now = map(signal.getsignal, STOP_SIGNALS)
    return next((h for h in set_now if isinstance(h, StopHandler)), None)


def settle() -> None:
    """The end of the command is decided: its last lines and its shutdown are not interrupted."""
    if handler := current_handler():
        handler.settled = True


@contextmanager
def stop_signals_raise() -> Iterator[StopHandler]:
    """Raise `TerminationError` for stop signals inside the block.

    Nested blocks share one handler: a library may have replaced it for some of the signals.
    Python sets signal handlers in the main thread only; in another one nothing changes.
    """
    handler = current_handler() or StopHandler()
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    with handled(STOP_SIGNALS, handler):
        yield handler


def install_for_process() -> StopHandler:
    """Handle stop signals until the process ends, its shutdown included."""
    handler = StopHandler()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
    show = sys.unraisablehook

    def hide(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, TerminationError):  # raised again, see above
            show(unraisable)

    sys.unraisablehook = hide
    return handler


def ignore_stop_signals() -> None:
    """Ignore stop signals until the process ends."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
