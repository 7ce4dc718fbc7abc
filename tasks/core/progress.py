"""Progress reporting: stages report, a sink shows it (terminal bar, Prefect artifact, log line).

Stages call `report`, or `track` of `tasks.core.tracking`. Without a sink nothing is shown, so pure
functions can be called from tests and notebooks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from tasks.core.system.escape_text import printable


class Sink(Protocol):
    """Receives progress of one stage."""

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Show that `done` of `total` units are finished; `note` is free text (loss, tokens/s)."""

    def message(self, text: str) -> None:
        """Show one line that stays."""


_sink: ContextVar[Sink | None] = ContextVar("progress_sink", default=None)


@contextmanager
def sink(target: Sink) -> Iterator[None]:
    """Send progress to `target` inside the block."""
    token = _sink.set(target)
    try:
        yield
    finally:
        _sink.reset(token)


def current_sink() -> Sink | None:
    """The sink that is set, if any."""
    return _sink.get()


def report(label: str, done: float, total: float | None = None, note: str = "") -> None:
    """Report the progress of the work called `label`."""
    if (target := _sink.get()) is not None:
        target.update(label, done, total, note)


def say(text: str) -> None:
    """Send the sink one sentence (what is waited for, which fallback is used)."""
    if (target := _sink.get()) is not None:
        target.message(printable(text))
