"""Failures that a person can act on.

`PipelineError` is the user's: shown as two lines (problem, remedy), exit code 2. `StageError` is a
stage that
broke: its name, the error and where the log is, exit code 1.
"""

from pathlib import Path


class PipelineError(Exception):
    """A mistake in input, settings or machine that the user can mend.

    Args:
        problem: What is wrong, with the value found and the value wanted.
        remedy: What to do about it, as an imperative sentence.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy


class StopError(PipelineError):
    """Work that was asked to stop and left a checkpoint: run again, it goes on."""


class TimeLimitError(PipelineError):
    """A stage took longer than its time limit."""


class StageError(Exception):
    """A stage that failed for a reason that is not the user's input."""

    def __init__(self, stage: str, error: BaseException, log: Path) -> None:
        super().__init__(f"stage {stage} failed: {type(error).__name__}: {error} (log: {log})")
        self.stage = stage
        self.error = error
        self.log = log
