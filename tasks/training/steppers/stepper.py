"""What the loop asks of a way to run a step; `plain` and `fast` are the two there are."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from tasks.core.models.packed_forward import WindowTensors


class Stepper(Protocol):
    """Forward and backward of one optimizer step.

    Attributes:
        layers: Most layers that could keep their activations.
        kept_layers: How many do.
        window_tokens: Longer windows are to be cut to this between their samples.
    """

    name: str
    attention: str
    layers: int
    kept_layers: int
    window_tokens: int

    def resize(self, kept_layers: int, window_tokens: int) -> None:
        """Set both, from the next window on."""

    def shrink(self) -> bool:
        """Take less memory from now on; False where there is nothing left to give."""

    def run(self, windows: Sequence[WindowTensors], trained_tokens: int, seed: int) -> Tensor:
        """Add gradients of the mean loss; returns the summed loss, unread."""

    def measure(self, window: WindowTensors) -> tuple[Tensor, Tensor]:
        """Loss and hit of each trained token, without dropout."""
