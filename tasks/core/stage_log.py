"""Log of a stage: its messages, log records and warnings, in a file that the artifact keeps."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core import progress
from tasks.core.errors import PipelineError, StageError
from tasks.core.progress import Sink
from tasks.core.system.disk_space import is_full, no_space


def hide_notices() -> None:
    """Hide warnings of libraries that no user can act on, in this process and its children: what
    their next versions will rename, and that optional kernels of a hub are missing."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


class StageLog:
    """A progress sink that also writes the messages of a stage to its log.

    Args:
        handler: Handler of the log file.
        target: The sink that receives everything as well.
    """

    def __init__(self, handler: logging.Handler, target: Sink | None) -> None:
        self._target = target
        self._logger = logging.Logger(
            "said"
        )  # not in the hierarchy, so that nothing else prints it
        self._logger.addHandler(handler)

    def note(self, text: str) -> None:
        """Write a line to the log only."""
        self._logger.info(text)

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """Pass progress on; it is not logged."""
        if self._target is not None:
            self._target.update(label, done, total, note)

    def message(self, text: str) -> None:
        """Log a message and pass it on."""
        self.note(text)
        if self._target is not None:
            self._target.message(text)


@contextmanager
def logged(log: Path, stage: str) -> Iterator[Callable[[str], None]]:
    """Write messages and log records of a stage to its log; turn a failure into a `StageError`.

    Yields: A function that writes a line to the log only.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        stage_log = StageLog(handler, progress.current_sink())
        with progress.sink(stage_log):
            yield stage_log.note
    except PipelineError:
        raise
    except Exception as error:
        if is_full(error):
            raise no_space(f"stage {stage}", log.parent.parent, error) from error
        logging.getLogger(stage).error("stage failed", exc_info=error)
        raise StageError(stage, error, log) from error
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()
