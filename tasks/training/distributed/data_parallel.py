"""Data parallelism: processes, one per GPU, that each run a part of every step's windows.

The trained parameters are one flat tensor, so one all-reduce of one gradient per step is all the
communication. Norm, clipping, update and schedule follow from it identically in every process.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tasks.core.models.packed_dataset import IGNORED, Window
from tasks.training.batches import split_window


@dataclass(frozen=True)
class DataParallel:
    """This process among all processes of the training.

    Attributes:
        rank: Of this process; 0 is the main process.
        size: Number of processes.
        lockstep: All processes run equally many windows, as FSDP waits for them in every layer.
    """

    rank: int = 0
    size: int = 1
    lockstep: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs, checkpoints and the adapter."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process; a collective call."""
        if self.size == 1:
            return flag
        device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
        return bool(self.add(torch.tensor(float(flag), device=device)) > 0)

    def share(self, windows: Sequence[Window]) -> list[Window]:
        """This process's part of a step: whole samples, about equally many tokens per process."""
        if self.size == 1:
            return list(windows)
        goal = math.ceil(sum(len(w.input_ids) for w in windows) / self.size)
        shares = distribute([p for w in windows for p in split_window(w, goal)], self.size)
        own = shares[self.rank]
        return own + [_UNTRAINED] * (max(map(len, shares)) - len(own)) if self.lockstep else own


SINGLE_PROCESS = DataParallel()
_UNTRAINED = Window(  # fills up a share in lockstep; its one token has no label
    np.zeros(1, np.int64),
    np.full(1, IGNORED, np.int64),
    np.zeros(1, np.int64),
    np.array([0, 1], np.int32),
    ("",),
)


def distribute(windows: Sequence[Window], count: int) -> list[list[Window]]:
    """Divide windows into `count` shares: the longest first, each to the share with least tokens.

    Longest-processing-time scheduling: shares differ by at most the longest window.
    """
    shares: list[list[Window]] = [[] for _ in range(count)]
    tokens = [0] * count
    for window in sorted(windows, key=lambda w: -len(w.input_ids)):
        least = tokens.index(min(tokens))
        shares[least].append(window)
        tokens[least] += len(window.input_ids)
    return shares
