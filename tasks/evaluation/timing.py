"""Cost of each part of an evaluation: seconds, tokens and peak memory, for the report."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tasks.core.models.device import peak_vram_gib, reset_peak
from tasks.evaluation.results import Cost

_KIB_PER_GIB = 2**20


@dataclass
class TimedPart:
    """A running part; the code inside the block sets the tokens."""

    tokens: int = 0


class Clock:
    """Measures parts one after another."""

    def __init__(self) -> None:
        self._costs: list[Cost] = []
        self.peak_vram_gib = 0.0  # most of any part

    @contextmanager
    def measure(self, what: str, tokens: int = 0) -> Iterator[TimedPart]:
        """Measure the block as a part called `what`."""
        part = TimedPart(tokens)
        reset_peak()
        begin = time.perf_counter()
        yield part
        seconds = time.perf_counter() - begin
        vram = peak_vram_gib()
        self.peak_vram_gib = max(self.peak_vram_gib, vram)
        memory = vram if torch.cuda.is_available() else _resident_gib()
        self._costs.append(Cost(what, seconds, part.tokens, memory))

    def costs(self) -> tuple[Cost, ...]:
        """All parts, in order."""
        return tuple(self._costs)


def _resident_gib() -> float:
    """Peak resident memory of the process so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_GIB
