"""What-if: how many rows would be kept if one threshold were 20 % lower or higher.

Computed from the measured values, without reading a text again. Duplicates are not searched again,
so a count can be a few rows off if a row that would be kept duplicates another one; below the
Jaccard threshold, only near duplicates that were compared are counted.
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
    """A threshold that can be moved: a row fails beyond it or, if `inclusive`, also at it."""

    rule: str
    value: float
    is_max: bool = True
    inclusive: bool = False
    highest: float = float("inf")

    def fails(self, values: Floats, factor: float = 1.0) -> NDArray[np.bool_]:
        """Which of the values fail; NaN never does."""
        limit = self.moved(factor)
        if self.inclusive:
            return values >= limit
        return values > limit if self.is_max else values < limit

    def moved(self, factor: float) -> float:
        """The threshold times a factor, at most `highest`."""
        return min(self.value * factor, self.highest)


class WhatIf:
    """Counts rows, a batch at a time."""

    def __init__(self, thresholds: Sequence[Threshold]) -> None:
        self._thresholds = [t for t in thresholds if t.value]
        self._kept = {t.rule: dict.fromkeys(FACTORS, 0) for t in self._thresholds}

    def add(self, values: Mapping[str, Floats], reasons: NDArray[np.int64]) -> None:
        """Count rows.

        Args:
            values: Measured values by rule.
            reasons: Number of reasons against each row now.
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
