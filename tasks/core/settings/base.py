"""Settings of the stage `base`."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section

COMMIT = "^[0-9a-f]{40}$"


class BaseSettings(Section):
    """Where the base model comes from: `path` or `gguf` if given, else `hub_id` at `revision`."""

    hub_id: str = Field(
        "stabilityai/stable-code-3b",
        pattern="^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$",
        description="Model on the Hugging Face hub, used when neither path nor gguf is given.",
    )
    revision: str | None = Field(
        None,
        pattern=COMMIT,
        description="Commit of hub_id, 40 hex digits. null: pinned at first use in data/pins.json.",
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="Local folder with config.json, safetensors and a tokenizer.",
    )
    gguf: str | None = Field(
        None,
        min_length=1,
        description="A .gguf file, or package:NAME/FILE for a file inside an installed package.",
    )
    dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="Number format of the weights unpacked from gguf."
    )
    licence: str | None = Field(
        None,
        min_length=1,
        description="Name of the base model's licence (SPDX); null: read from its own files.",
    )

    trust_remote_code: bool = Field(
        False,
        description="Run the Python files that come with this very model; false: a model that "
        "needs its own code is refused.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "BaseSettings":
        if self.path and self.gguf:
            raise ValueError(
                f"path ({self.path}) and gguf ({self.gguf}) both name a base model\n"
                "Set one of base.path and base.gguf to null."
            )
        return self
