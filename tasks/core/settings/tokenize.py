"""Settings of the stage `tokenize`."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section


class TokenizeSettings(Section):
    """How text becomes token ids, labels and packed windows."""

    max_tokens: int | None = Field(
        None,
        ge=8,
        description="Longest row in tokens, end-of-text token included; longer rows are dropped, "
        "except plain text, which is split. null: the model's own limit, or window_tokens if that "
        "is less.",
    )
    window_tokens: int = Field(
        4096, ge=8, description="Tokens of a training window, into which several rows are packed."
    )
    loss_on: Literal["output", "last", "row", "everything"] = Field(
        "output",
        description="output: the completion, and all answers of a conversation except those that "
        "a row excludes; last: only the last answer; row: only the messages and segments that a "
        "row marks; everything: the prompt, too.",
    )
    min_characters_per_token: float = Field(
        0.0,
        ge=0,
        description="Minimum mean length of the tokens of an output in bytes of UTF-8 (an "
        "English letter has one, a Chinese character three); rows below it are dropped, because "
        "they contain data rather than code. 1.5 suits code, 2.5 is usual for whole files of it "
        "and would drop one function in eight. 0: no limit, because many tokenizers need a token "
        "for each byte of numbers and of languages such as Korean. Outputs of fewer than 32 tokens "
        "are always kept.",
    )
    shuffle: bool = Field(True, description="Shuffle the rows; false: keep their order.")
    seed: int = Field(0, ge=0, description="Seed of the order of rows and windows.")

    @model_validator(mode="after")
    def _a_row_fits_a_window(self) -> "TokenizeSettings":
        if self.max_tokens is not None and self.max_tokens > self.window_tokens:
            raise ValueError(
                f"max_tokens {self.max_tokens} is more than window_tokens {self.window_tokens}, "
                "and a row is never cut\n"
                "Raise tokenize.window_tokens or lower tokenize.max_tokens."
            )
        return self
