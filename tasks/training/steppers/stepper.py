"""The interface between the loop and a stepper, and how a stepper takes less memory.

Two implementations: `autograd_stepper` (transformers, PEFT and autograd: the reference) and
`fast/step` (fused, hand-written backward pass).
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from tasks.core.models.packed_forward import WindowTensors

MIN_WINDOW_TOKENS = 256  # beside the weights, shorter windows save nothing that matters


class Stepper(Protocol):
    """Forward and backward of one optimizer step.

    Attributes:
        name: As training.json and stored memory probes name it.
        attention: Kind of attention, for training.json.
        layers: Layers that can keep their activations.
        kept_layers: Layers that keep them; the others compute them again in the backward pass.
        window_tokens: The caller cuts longer windows to this, between their samples.
        lockstep: Processes wait for each other in every layer, so sizes must stay equal.
    """

    name: str
    attention: str
    layers: int
    kept_layers: int
    window_tokens: int
    lockstep: bool

    def resize(self, kept_layers: int, window_tokens: int) -> None:
        """Set both sizes, from the next window on; neither changes the result of a step."""

    def run(self, windows: Sequence[WindowTensors], divisor: float, seed: int) -> Tensor:
        """Add the gradients of the loss, summed with the windows' weights and divided by `divisor`,
        to the flat gradient.

        Args:
            windows: All windows of one optimizer step that this process runs.
            divisor: The trained tokens of the whole step over all processes, so that every token
                has the same weight however the step is cut; over the loss scale.
            seed: Of the dropout; a window's masks follow from it and its index in the step.

        Returns:
            The summed loss, float32[] on the device. The caller reads it only when it logs: reading
            waits for the GPU.
        """

    def measure(self, window: WindowTensors) -> tuple[Tensor, Tensor]:
        """Loss and hit of each trained token, without dropout: float32[m], bool[m]."""


def shrink(stepper: Stepper) -> bool:
    """Halve the kept layers, then the window; False if neither can get smaller."""
    kept, tokens = stepper.kept_layers, stepper.window_tokens
    if stepper.lockstep or (not kept and tokens <= MIN_WINDOW_TOKENS):
        return False
    if kept:
        stepper.resize(kept // 2, tokens)
    else:
        stepper.resize(0, max(MIN_WINDOW_TOKENS, tokens // 2))
    return True


def window_seed(seed: int, index: int) -> int:
    """Dropout seed of the window at `index` in a step; distinct for adjacent steps and windows."""
    return (seed * 1_000_003 + index * 7_919 + 17) % 2**63
