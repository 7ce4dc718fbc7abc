"""How many rows would be kept if one threshold were a fifth lower or higher.

Replayed from the measured values, without reading a text again. Duplicates are not searched again,
so a count can be a few rows off where a row that would be kept is some other row's twin; below its
own threshold, near duplicates are counted as far as they were proposed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FACTORS = {"-20%": 0.8, "+20%": 1.2}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """One that can be moved: a row fails beyond it, or, if `inclusive`, at it too."""

    rule: str
    value: float
    is_most: bool = True
    inclusive: bool = False
    highest: float = float("inf")

    def fails(self, values: Floats, factor: float = 1.0) -> NDArray[np.bool_]:
        """Which of the values fail; not a number never does."""
        limit = self.moved(factor)
        if self.inclusive:
            return values >= limit
        return values > limit if self.is_most else values < limit

    def moved(self, factor: float) -> float:
        """The threshold times a factor, within what makes sense."""
        return min(self.value * factor, self.highest)


class WhatIf:
    """Counts a batch at a time."""

    def __init__(self, thresholds: Sequence[Threshold]) -> None:
        self._thresholds = [t for t in thresholds if t.value]
        self._kept = {t.rule: dict.fromkeys(FACTORS, 0) for t in self._thresholds}

    def add(self, values: Mapping[str, Floats], reasons: NDArray[np.int64]) -> None:
        """Count rows.

        Args:
            values: Measured values by rule.
            reasons: How many reasons stand against each row now.
        """
        for threshold in self._thresholds:
            measured = values[threshold.rule]
            others = reasons - threshold.fails(measured)
            for name, factor in FACTORS.items():
                fails = threshold.fails(measured, factor)
                self._kept[threshold.rule][name] += int(np.count_nonzero((others == 0) & ~fails))

    def to_json(self) -> dict[str, dict[str, Any]]:
        """{rule: {"-20%": {"threshold", "kept"}, "+20%": ...}}."""
        return {
            t.rule: {
                name: {"threshold": round(t.moved(factor), 6), "kept": self._kept[t.rule][name]}
                for name, factor in FACTORS.items()
            }
            for t in self._thresholds
        }
