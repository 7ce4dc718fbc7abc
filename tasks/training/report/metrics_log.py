"""Training metrics: running counters, and metrics.jsonl with one line per logged step.

Lines are appended as training runs and cut back when a run resumes from an earlier checkpoint.
Experiment trackers get the same lines.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.core.system.atomic_write import write_text
from tasks.training.report.trackers import Trackers

METRICS_FILE = "metrics.jsonl"


@dataclass
class Counters:
    """Totals since the start of training; part of a checkpoint and of training.json.

    Attributes:
        step: Optimizer steps finished.
        epoch: Epoch of the last step, from 0.
        tokens: Tokens seen, without padding.
        trained: Tokens in the loss.
        skipped: Steps without a trained token.
        overflowed: Steps skipped as their numbers exceeded float16.
        seconds: Time in steps, over all resumed runs.
    """

    step: int = 0
    epoch: int = 0
    tokens: int = 0
    trained: int = 0
    skipped: int = 0
    overflowed: int = 0
    seconds: float = 0.0


@dataclass
class LogInterval:
    """Sums since the last logged step."""

    started: float
    losses: list[Tensor] = field(default_factory=list)
    trained: int = 0
    tokens: int = 0

    def total(self) -> float:
        """Summed loss of this process; waits for the GPU."""
        return float(torch.stack(self.losses).sum()) if self.losses else 0.0


class MetricsLog:
    """Appends lines to metrics.jsonl in `folder`.

    Args:
        folder: Of the file.
        resume_step: Lines of later steps are dropped, as those steps run again.
        total_steps: A validation after the last of them is dropped, too: it comes after the last
            checkpoint, and runs again.
        trackers: Get every line, too.
    """

    def __init__(
        self, folder: Path, resume_step: int, total_steps: int, trackers: Trackers | None = None
    ) -> None:
        self._path = folder / METRICS_FILE
        kept = [
            line
            for line in read_metrics(self._path)
            if line["step"] <= resume_step
            and not ("validation_loss" in line and line["step"] == total_steps)
        ]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._trackers = trackers

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line, floats rounded to 9 digits."""
        rounded = {k: round(v, 9) if isinstance(v, float) else v for k, v in line.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
        if self._trackers is not None:
            self._trackers.log(rounded)

    def close(self) -> None:
        """End the trackers' runs."""
        if self._trackers is not None:
            self._trackers.finish()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics.jsonl up to one that a kill cut off; [] if there is no file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
