"""The processes that train together, one a GPU: each runs a part of every step's windows.

The trained parameters are one tensor, so what the processes tell each other in a step is one sum of
one gradient. Everything else follows from it alike in all of them: norm, update, schedule. One
process is a team of one and asks nobody.
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
class Team:
    """This process's place among `size`; the first one writes.

    Attributes:
        lockstep: All run equally many windows, because each waits for the others in every layer.
    """

    rank: int = 0
    size: int = 1
    lockstep: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process writes logs, checkpoints and the adapter."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all of them must ask."""
        if self.size == 1:
            return flag
        backend = dist.get_backend()
        device = torch.device("cuda" if backend == "nccl" else "cpu")
        return bool(self.add(torch.tensor(float(flag), device=device)) > 0)

    def share(self, windows: Sequence[Window]) -> list[Window]:
        """This process's part of a step: whole samples, about as many tokens as the others have."""
        if self.size == 1:
            return list(windows)
        goal = math.ceil(sum(len(w.input_ids) for w in windows) / self.size)
        hands = deal([p for w in windows for p in split_window(w, goal)], self.size)
        own = hands[self.rank]
        return own + [IDLE] * (max(map(len, hands)) - len(own)) if self.lockstep else own


ALONE = Team()
IDLE = Window(  # trains nothing
    np.zeros(1, np.int64),
    np.full(1, IGNORED, np.int64),
    np.zeros(1, np.int64),
    np.array([0, 1], np.int32),
    ("",),
)


def deal(windows: Sequence[Window], hands: int) -> list[list[Window]]:
    """Give each window, the longest first, to the hand with the fewest tokens."""
    result: list[list[Window]] = [[] for _ in range(hands)]
    tokens = [0] * hands
    for window in sorted(windows, key=lambda w: -len(w.input_ids)):
        hand = tokens.index(min(tokens))
        result[hand].append(window)
        tokens[hand] += len(window.input_ids)
    return result
