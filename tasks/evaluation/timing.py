"""Seconds, tokens and memory of the parts of an evaluation, for the report."""

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
class Part:
    """One part while it runs; whoever runs it fills in the tokens."""

    tokens: int = 0


class Clock:
    """Measures parts one after another."""

    def __init__(self) -> None:
        self._costs: list[Cost] = []
        self._peak_vram_gib = 0.0

    @contextmanager
    def measure(self, what: str, tokens: int = 0) -> Iterator[Part]:
        """Measure the block as a part called `what`."""
        part = Part(tokens)
        reset_peak()
        begin = time.perf_counter()
        yield part
        seconds = time.perf_counter() - begin
        vram = peak_vram_gib()
        self._peak_vram_gib = max(self._peak_vram_gib, vram)
        memory = vram if torch.cuda.is_available() else _resident_gib()
        self._costs.append(Cost(what, seconds, part.tokens, memory))

    def costs(self) -> tuple[Cost, ...]:
        """All parts, in order."""
        return tuple(self._costs)

    def peak_vram_gib(self) -> float:
        """Most GPU memory of any part."""
        return self._peak_vram_gib


def _resident_gib() -> float:
    """Most memory that the process has held so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_GIB
