"""Settings of the stage `merge`."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section, unkeyed


class MergeSettings(Section):
    """How the adapter becomes part of the model, and what the result is measured against."""

    strategy: Literal["best", "base16", "dequantized"] = Field(
        "best",
        description=(
            "What the adapter is added to: base16 (the 16-bit base), dequantized (the base as it "
            "comes back from 4 bit, which is what the adapter saw), or best (both are made and "
            "measured, the one with the lower held-out loss is kept)."
        ),
    )
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="What the base was quantized to while the adapter was trained."
    )
    dtype: Literal["bfloat16", "float16"] = Field(
        "bfloat16", description="Type of the merged weights."
    )
    gguf: tuple[Literal["f16", "q8_0"], ...] = Field(
        (),
        description=(
            "GGUF files to write beside the model, for llama.cpp and Ollama: f16 (16 bits a "
            "weight), q8_0 (8.5 bits). Llama and StableLM models with byte-level BPE."
        ),
    )
    max_shard_gib: float = Field(
        2.0, gt=0, le=50, description="Largest safetensors file, in GiB; also bounds memory."
    )
    sample_tokens: int = Field(
        2048,
        ge=64,
        le=1_000_000,
        description="Held-out tokens on which merged and unmerged model are compared.",
    )
    tolerance_percent: float = Field(
        2.0,
        gt=0,
        le=100,
        description=(
            "How far the merged model's loss may lie from that of the same base with the adapter "
            "beside it, and above that of the model that was evaluated, in percent."
        ),
    )
    min_agreement: float = Field(
        0.95,
        ge=0,
        le=1,
        description=(
            "Least share of positions at which the merged model and the same base with the "
            "adapter beside it pick the same next token."
        ),
    )
    force: bool = Field(
        False, description="Merge although the evaluation says regressed; the model card says so."
    )
    check_device: Literal["cpu", "cuda", "auto"] = unkeyed(
        "cpu",
        description=(
            "Where the comparison runs: cpu leaves the GPU to a training that may be running; "
            "auto takes a GPU where there is one."
        ),
    )

    @model_validator(mode="after")
    def _gguf(self) -> "MergeSettings":
        if len(set(self.gguf)) != len(self.gguf):
            raise ValueError(
                f"gguf holds a kind twice: {', '.join(self.gguf)}\nName each kind once."
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
