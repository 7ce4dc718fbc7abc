"""Progress sinks: bars in a terminal, lines in a log, progress artifacts on a Prefect server.

The command line sets its sink before it calls the flow; a flow started by a worker uses `LogSink`.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)
from rich.text import Text

from flows import messages, terminal
from tasks.core import progress

LOG_EVERY_S = 15.0
BAR_EVERY_S = 3.0  # shorter work gets no bar


class TimeLeft(ProgressColumn):
    """Time left by the mean speed since the work began or was resumed.

    rich's own column forgets steps that are older than 30 seconds, and shows nothing for slow ones.
    """

    def render(self, task: Task) -> Text:
        """The time as text; empty until there is a speed, and at the end."""
        first, since, now = (task.fields[name] for name in ("first", "since", "now"))
        done = task.completed - first
        if done <= 0 or task.total is None or task.completed >= task.total:
            return Text("")
        left = (task.total - task.completed) * (now - since) / done - (time.monotonic() - now)
        return Text(f"{messages.duration(max(1, left))} left")


class TerminalSink:
    """A progress bar for the running work; printed lines stay above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._has_bars = console.is_terminal and not console.is_dumb_terminal
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(20),
            TaskProgressColumn("[progress.percentage]{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}"),
            TimeLeft(),
            console=console,
            transient=True,
            disable=not self._has_bars,
        )
        self._bars: dict[str, TaskID] = {}
        self._slow = _Throttle(LOG_EVERY_S)

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Move the bar; without a terminal for bars, print a line every `LOG_EVERY_S` seconds."""
        if not self._has_bars:
            if self._slow.due(label):
                terminal.write(self._console, f"  {progress_text(label, done, total, note)}")
            return
        now = time.monotonic()
        if label not in self._bars:
            self._bars[label] = self._bar.add_task(
                label, total=total, note=note, first=done, since=now, now=now
            )
            self._bar.start()
        self._bar.update(self._bars[label], completed=done, total=total, note=note, now=now)

    def message(self, text: str) -> None:
        """Print a line and clear finished bars."""
        self.close()
        terminal.write(self._console, text)

    def close(self) -> None:
        """Remove the bars, and show the cursor again."""
        for bar in self._bars.values():
            self._bar.remove_task(bar)
        self._bars.clear()
        self._bar.stop()


class LogSink:
    """Lines in the log of the run, and one progress artifact per label on its page."""

    def __init__(self) -> None:
        try:
            self._logger = get_run_logger()
        except MissingContextError:
            self._logger = get_logger("finetune")
        self._artifacts: dict[str, UUID] = {}
        self._latest: dict[str, tuple[float, str]] = {}
        self._lines = _Throttle(LOG_EVERY_S)
        self._bars = _Throttle(BAR_EVERY_S)

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Log every `LOG_EVERY_S`, and move the progress artifact every `BAR_EVERY_S` seconds."""
        if self._lines.due(label):
            self._logger.info(progress_text(label, done, total, note))
        if not total:
            return
        text = progress_text(label, done, total, note)
        self._latest[label] = (min(100.0, 100 * done / total), text)
        if self._bars.due(label):
            self._show(label)

    def message(self, text: str) -> None:
        """Log one line and bring the progress artifacts up to date."""
        for label in self._latest.keys() & self._artifacts.keys():
            self._show(label)
        self._latest.clear()
        self._logger.info(text)

    def _show(self, label: str) -> None:
        percent, text = self._latest[label]
        if label in self._artifacts:
            update_progress_artifact(self._artifacts[label], percent, description=text)
            return
        key = "-".join(re.findall("[a-z0-9]+", label.lower()))
        created = create_progress_artifact(percent, key=f"progress-{key}", description=text)
        self._artifacts[label] = created  # type: ignore[assignment]


class _Throttle:
    """Limits each label to one update per interval, counted from its first one."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._last: dict[str, float] = {}

    def due(self, label: str) -> bool:
        now = time.monotonic()
        if now - self._last.setdefault(label, now) < self._every:
            return False
        self._last[label] = now
        return True


def progress_text(label: str, done: float, total: float | None, note: str) -> str:
    """Progress as text: "train 120/2000 · loss 1.23"."""
    of = f"/{total:,.0f}" if total else ""
    return f"{label} {done:,.0f}{of}" + (f" · {note}" if note else "")


@contextmanager
def watched() -> Iterator[None]:
    """Send progress to the log, unless a sink is already set."""
    if progress.current_sink() is not None:
        yield
    else:
        with progress.sink(LogSink()):
            yield
