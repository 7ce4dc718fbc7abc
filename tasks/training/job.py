"""What a training process is told, as one value that can be written to a file for another process.

In: settings and inputs of the stage. Out: a `Job`, the same in every process of a team.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.core.settings.hardware import HardwareSettings
from tasks.core.settings.train import TrainSettings


class Job(BaseModel):
    """Everything that a training needs.

    Attributes:
        data: Tokenized rows to train on.
        validation: Tokenized rows to measure.
        weights: The base model.
        adapter: Where to start from; None: at the base.
        start: What is told about the start.
        out: Folder for the adapter and what lies beside it.
        scratch: Folder that is kept across a kill.
    """

    model_config = ConfigDict(frozen=True)

    train: TrainSettings
    hardware: HardwareSettings
    data: Path
    validation: Path
    weights: Path
    adapter: Path | None
    start: dict[str, Any]
    out: Path
    scratch: Path
