"""Settings of the stage `merge`."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section, unkeyed


class MergeSettings(Section):
    """How the adapter is merged into the model, and how the result is verified."""

    strategy: Literal["best", "base16", "dequantized"] = Field(
        "best",
        description=(
            "What the adapter is added to: base16 (the 16-bit base), dequantized (the dequantized "
            "4-bit base, on which the adapter was trained), or best (both are written and "
            "measured, and the one with the lower held-out loss is kept)."
        ),
    )
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="Quantization of the base during the training of the adapter."
    )
    dtype: Literal["bfloat16", "float16"] = Field(
        "bfloat16", description="Type of the merged weights."
    )
    gguf: tuple[Literal["f16", "q8_0", "q4_k_m"], ...] = Field(
        (),
        description=(
            "GGUF files to write beside the model, for llama.cpp and Ollama: f16 (16 bits per "
            "weight), q8_0 (8.5 bits), q4_k_m (4.9 bits; needs `.[llama-cpp]`)."
        ),
    )
    max_shard_gib: float = Field(
        2.0, gt=0, le=50, description="Largest safetensors file, in GiB; also limits memory."
    )
    sample_tokens: int = Field(
        2048,
        ge=64,
        le=1_000_000,
        description="Held-out tokens on which the merged and the unmerged model are compared.",
    )
    tolerance_percent: float = Field(
        2.0,
        gt=0,
        le=100,
        description=(
            "Largest increase, in percent, of the merged model's loss over that of the "
            "same base with the unmerged adapter, and over that of the evaluated model."
        ),
    )
    min_agreement: float = Field(
        0.95,
        ge=0,
        le=1,
        description=(
            "Smallest share of positions at which the merged model and the same base with the "
            "unmerged adapter have the same most likely next token; not required if its loss is "
            "smaller by more than the tolerance."
        ),
    )
    force: bool = Field(
        False, description="Merge despite the verdict regressed; the model card states it."
    )
    check_device: Literal["cpu", "cuda", "auto"] = unkeyed(
        "cpu",
        description=(
            "Device of the comparison: cpu leaves the GPU free for a training; auto uses "
            "a GPU if there is one."
        ),
    )

    @model_validator(mode="after")
    def _gguf(self) -> "MergeSettings":
        if len(set(self.gguf)) != len(self.gguf):
            raise ValueError(
                f"gguf lists a type twice: {', '.join(self.gguf)}\nList each type once."
            )
        return self

    @model_validator(mode="after")
    def _quantized(self) -> "MergeSettings":
        if self.strategy == "dequantized" and self.quantization == "none":
            raise ValueError(
                "strategy is dequantized and quantization is none: there is nothing to dequantize\n"
                "Set merge.strategy to base16, or merge.quantization to what training used."
            )
        return self
