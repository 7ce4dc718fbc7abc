"""What a run has done so far, and since its last logged step."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Counters:
    """What has been done so far; part of a checkpoint.

    Attributes:
        step: Optimizer steps finished.
        epoch: Pass that the last step was in, from 0.
        tokens: Real tokens seen.
        trained: Tokens that the loss was taken over.
        skipped: Steps without a trained token.
        seconds: In the steps, over all runs that led here.
    """

    step: int = 0
    epoch: int = 0
    tokens: int = 0
    trained: int = 0
    skipped: int = 0
    seconds: float = 0.0


@dataclass
class Interval:
    """Sums since the last logged step."""

    started: float
    losses: list[Tensor] = field(default_factory=list)
    trained: int = 0
    tokens: int = 0

    def total(self) -> float:
        """Summed loss of this process; waits for the GPU."""
        return float(torch.stack(self.losses).sum()) if self.losses else 0.0
