"""A filter rule: a pure measure of a row and a threshold from the settings.

Measure and threshold are separate so that all rules that a row fails are recorded with their
values, and another threshold can be tried on recorded values.

The functions of a `Rule` that take the settings run in the main process only. Worker processes
receive their results as a `RuleValues`, because importing the settings would double their start-up
time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tasks.core.settings.filter import FilterSettings


@dataclass(frozen=True)
class RuleValues:
    """What one run's settings say about a rule, as plain values that pickle.

    Their `repr` enters the key of the row cache, so they must not hold sets or functions.
    """

    threshold: float
    kinds: tuple[str, ...] | None
    parameters: tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """One rule; an entry of the registry.

    Attributes:
        name: Column of the measurements, and the rule's name in reasons and reports.
        setting: Field of `FilterSettings` that the user changes to move the threshold.
        unit: Unit of the measured value, for messages; "" for a rule that measures 1 or 0.
        measure: Value of a row, None if it has none; called with the row and `parameters`.
        threshold: The last value that passes.
        direction: Whether the threshold is the highest ("max") or lowest ("min") value allowed.
        kinds: Kinds of rows that are measured; None: all.
        python_only: Only rows in Python, or of unknown language, are measured.
        parameters: More values of the settings that the measure needs.
        note: What a reason says about a row besides the value; called like `measure`.
    """

    name: str
    setting: str
    unit: str
    measure: Callable[..., float | None]
    threshold: Callable[["FilterSettings"], float] = lambda _: 0.0
    direction: Literal["max", "min"] = "max"
    kinds: Callable[["FilterSettings"], Sequence[str]] | None = None
    python_only: bool = False
    parameters: Callable[["FilterSettings"], tuple[Any, ...]] = lambda _: ()
    note: Callable[..., str] | None = None

    def values(self, settings: "FilterSettings") -> RuleValues:
        """The rule's part of the settings."""
        kinds = tuple(self.kinds(settings)) if self.kinds else None
        return RuleValues(float(self.threshold(settings)), kinds, self.parameters(settings))

    def fails(self, value: float, threshold: float) -> bool:
        """Whether a measured value is beyond a threshold."""
        return value > threshold if self.direction == "max" else value < threshold


def functions_only(_settings: "FilterSettings") -> tuple[str, ...]:
    """For `Rule.kinds`: rows made from a documented function."""
    return ("function",)
