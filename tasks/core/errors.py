"""Exceptions that a command reports without a traceback.

    PipelineError          user error: two lines (problem, remedy), exit code 2
      StopError            a requested stop; a checkpoint was written
      TimeLimitError       a stage ran or waited for longer than a setting allows
      TrainingError        a training diverged or needs too much memory; other settings may work
      NotSupportedError    the model or the machine lacks a feature; callers may go on without it
      RecordError          a stored record is missing or cannot be read
    StageError             any other failure of a stage: exit code 1, with the path of its log

Callers catch the class that they can handle. Catching `PipelineError` is for the outermost layer,
which prints it.
"""

from pathlib import Path
from typing import Any

from tasks.core.system.escape_text import printable


class PipelineError(Exception):
    """An error in input, settings or machine that the user can fix.

    Args:
        problem: What is wrong, with the value found and the value wanted.
        remedy: What to do about it, as an imperative sentence.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = printable(problem), printable(remedy)
        super().__init__(f"{self.problem}\n{self.remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        # a worker process sends the error by pickle, which would pass the joined text alone
        return type(self), (self.problem, self.remedy)


class StopError(PipelineError):
    """A requested stop after which the next run resumes from a checkpoint."""


class TimeLimitError(PipelineError):
    """A stage ran, or waited for the GPU, for longer than a setting allows."""


class TrainingError(PipelineError):
    """A training that cannot finish with its settings, though others may: it diverged, or needs
    more memory than there is."""


class NotSupportedError(PipelineError):
    """A feature that this model or machine does not have."""


class RecordError(PipelineError):
    """A stored record (of a run, an artifact, a promotion) that is missing or cannot be read."""


class StageError(Exception):
    """A stage that failed for a reason other than the user's input."""

    def __init__(self, stage: str, error: BaseException, log: Path) -> None:
        problem = f"stage {stage} failed: {type(error).__name__}: {error} (log: {log})"
        super().__init__(printable(problem))
        self.stage = stage
        self.error = error
        self.log = log
