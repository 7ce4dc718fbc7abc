"""Settings of the stage `prompt`."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section


class PromptSettings(Section):
    """How a row becomes text, and which rows are held out."""

    template: Literal["instruction", "completion"] = Field(
        "instruction",
        description="instruction: sections under ### headings; completion: instruction and input "
        "as they stand, continued by the output as it stands.",
    )
    validation_share: float = Field(
        0.05, gt=0, lt=1, description="Share of projects held out to watch training, 0..1."
    )
    test_share: float = Field(
        0.05, gt=0, lt=1, description="Share of projects held out for the evaluation, 0..1."
    )
    seed: int = Field(0, ge=0, description="Chooses which projects are held out.")
    max_train_rows: int | None = Field(
        None, ge=1, description="Train on at most so many rows; null: on all."
    )
    max_held_out_rows: int | None = Field(
        None, ge=1, description="Hold out at most so many rows in each of validation and test."
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "PromptSettings":
        held_out = self.validation_share + self.test_share
        if held_out >= 1:
            raise ValueError(
                f"validation_share + test_share is {held_out:g}, which leaves nothing to train on\n"
                "Lower prompt.validation_share or prompt.test_share."
            )
        return self
