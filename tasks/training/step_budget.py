"""`train.max_steps: auto`: steps, windows of a step and learning rate from the size of the data.

A pure function of settings and two numbers that the stage tokenize reports, so that `finetune plan`
shows the arithmetic before a GPU is used. The rules:

- Passes: `train.epochs`, else three. Up to about four passes over the same data are as good as new
  data (Muennighoff et al. 2023).
- A step has as many windows as `train.batch_tokens` holds, halved as long as there would be fewer
  than `MIN_STEPS` steps: AdamW needs a number of steps, whatever their size.
- The learning rate is scaled with the square root of the step's size (Malladi et al. 2022).
- Warm-up is at most a tenth of the steps, and there are at most `MAX_STEPS`, as in the original
  recipe.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from tasks.core.settings.train import TrainSettings

AUTO = "auto"
PASSES = 3.0
MIN_STEPS, MAX_STEPS = 100, 2000
WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class StepBudget:
    """The resolved schedule of a training.

    Attributes:
        tokens: Of the training split.
        windows: Packed windows of the training split.
        step_windows: Windows of a step.
        passes: Passes over the data.
        steps: Optimizer steps.
        warmup_steps: Of these, steps in which the learning rate rises.
        learning_rate: Peak learning rate.
        full_learning_rate: The setting, for a step of `train.batch_tokens`.
    """

    tokens: int
    windows: int
    step_windows: int
    passes: float
    steps: int
    warmup_steps: int
    learning_rate: float
    full_learning_rate: float

    @classmethod
    def of(cls, settings: TrainSettings, tokens: int, windows: int) -> "StepBudget":
        """The budget for a training split.

        Args:
            settings: With `max_steps` auto, so `batch_tokens` is set.
            tokens: Of the split.
            windows: Of the split; at least one.
        """
        assert settings.batch_tokens is not None, "auto without batch_tokens is an invalid setting"
        passes = settings.epochs or PASSES
        full = max(1, round(settings.batch_tokens * windows / tokens))
        size = full
        while size > 1 and _steps(passes, windows, size) < MIN_STEPS:
            size //= 2
        steps = min(MAX_STEPS, _steps(passes, windows, size))
        return cls(
            tokens=tokens,
            windows=windows,
            step_windows=size,
            passes=steps * size / windows if steps == MAX_STEPS else passes,
            steps=steps,
            warmup_steps=min(settings.warmup_steps, int(steps * WARMUP_SHARE)),
            learning_rate=float(f"{settings.learning_rate * math.sqrt(size / full):.3g}"),
            full_learning_rate=settings.learning_rate,
        )

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step."""
        return max(1, round(self.step_windows * self.tokens / self.windows))

    def resolved(self, settings: TrainSettings) -> TrainSettings:
        """The settings with numbers instead of `auto`."""
        values = {
            "max_steps": self.steps,
            "epochs": None,
            "batch_tokens": self.batch_tokens,
            "warmup_steps": self.warmup_steps,
            "learning_rate": self.learning_rate,
        }
        return settings.model_copy(update=values)

    def to_json(self) -> dict[str, Any]:
        """Fields for training.json and `finetune plan --json`."""
        return asdict(self)

    def __str__(self) -> str:
        passes = "1 pass" if self.passes == 1 else f"{self.passes:.3g} passes"
        each, windows, steps = (
            f"{number:,} {word}{'' if number == 1 else 's'}"
            for number, word in (
                (self.step_windows, "window"),
                (self.windows, "window"),
                (self.steps, "step"),
            )
        )
        most = ", the most that auto sets" if self.steps == MAX_STEPS else ""
        rate = f"learning rate {self.learning_rate:.3g}"
        if self.learning_rate != self.full_learning_rate:
            rate += f" instead of {self.full_learning_rate:.3g}, because the steps are smaller"
        return (
            f"{steps}{most}, {self.warmup_steps} of them warm-up: {self.tokens:,} tokens in "
            f"{windows}, {passes}, {each} per step; {rate}"
        )


def _steps(passes: float, windows: int, step_windows: int) -> int:
    return max(1, math.ceil(passes * windows / step_windows - 1e-9))
