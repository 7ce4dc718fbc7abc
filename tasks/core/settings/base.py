"""Settings of the stage `base`."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import COMMIT, Section


class BaseSettings(Section):
    """Source of the base model: `path` or `gguf` if set, else `hub_id` at `revision`."""

    hub_id: str = Field(
        "stabilityai/stable-code-3b",
        pattern="^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$",
        description="Model on the Hugging Face hub, used if neither path nor gguf is set.",
    )
    revision: str | None = Field(
        None,
        pattern=COMMIT,
        description="Commit of hub_id, 40 hex digits; null: pinned in data/pins.json at first use.",
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="Local folder with config.json, safetensors and a tokenizer.",
    )
    gguf: str | None = Field(
        None,
        min_length=1,
        description="A .gguf file, or package:NAME/FILE for a file in an installed package.",
    )
    dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="Number format of the weights converted from gguf."
    )
    licence: str | None = Field(
        None,
        min_length=1,
        description="Name of the base model's license (SPDX); null: read from its files.",
    )

    trust_remote_code: bool = Field(
        False,
        description="Run the Python files in the model's own folder; false: a model that needs "
        "them is rejected.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "BaseSettings":
        if self.path and self.gguf:
            raise ValueError(
                f"path ({self.path}) and gguf ({self.gguf}) both select a base model\n"
                "Set one of base.path and base.gguf to null."
            )
        return self
