"""Dynamic loss scaling: keeps the gradients of a float16 training in float16's range.

float16 holds numbers from 6e-8 to 65,504. Gradients of activations are often smaller, so the loss
is multiplied by a scale before the backward pass, and the summed gradient, in 32 bit, is divided by
it. A step whose gradients exceed the range is skipped and halves the scale (Micikevicius et al.
2018); the constants are those of PyTorch's GradScaler. Scales are powers of two, which round
nothing.

A scale does not help where activations exceed the range in the forward pass, as those of some
models that were trained in bfloat16 do: such a training ends in its first steps.
"""

from dataclasses import dataclass

from tasks.core.errors import TrainingError
from tasks.core.models.device import beyond_float16

GROWTH_STEPS = 2000
MAX_SKIPPED = 20  # in a row: the scale is then below 1
FIRST_STEPS = 20  # in which no forward pass may overflow


@dataclass
class LossScale:
    """The scale and what it depends on; part of a checkpoint.

    Attributes:
        value: Factor of the loss.
        good_steps: Steps since the scale changed.
        skipped: Steps skipped in a row.
    """

    value: float = 2.0**16
    good_steps: int = 0
    skipped: int = 0

    def passed(self) -> None:
        """Note a step with finite gradients; doubles the scale after `GROWTH_STEPS` of them."""
        self.skipped, self.good_steps = 0, self.good_steps + 1
        if self.good_steps == GROWTH_STEPS:
            self.value, self.good_steps = 2 * self.value, 0

    def failed(self, step: int, in_forward: bool) -> None:
        """Note a step that is skipped, and halve the scale.

        Args:
            step: From 0.
            in_forward: The loss itself is not finite, which no scale changes.

        Raises:
            PipelineError: That will not get better.
        """
        if in_forward and step < FIRST_STEPS:
            raise beyond_float16(f"the loss of step {step + 1}")
        self.skipped, self.good_steps = self.skipped + 1, 0
        if not in_forward:
            self.value /= 2
        if self.skipped == MAX_SKIPPED:
            what = "a loss" if in_forward else "gradients"
            raise TrainingError(
                f"{MAX_SKIPPED} steps in a row, the last of them step {step + 1}, had {what} "
                f"beyond the range of float16, at a loss scale of {self.value:g}",
                "Lower train.learning_rate, or set train.dtype to float32, which needs more memory "
                "and is slower.",
            )
