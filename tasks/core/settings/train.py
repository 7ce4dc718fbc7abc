"""Settings of the stage `train`: the defaults are the original recipe's numbers."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section, unkeyed


class StartSettings(Section):
    """Where a training starts."""

    adapter: Literal["base", "champion"] = Field(
        "base",
        description="base: a fresh adapter; champion: the adapter of the promoted model goes on "
        "with the rows that are new since, if there is a champion on the same base.",
    )
    replay_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="With champion: share of old rows among those trained on; 1: all of them.",
    )


class TrainSettings(Section):
    """4-bit LoRA training: the adapter, the batch, the schedule and the watching."""

    lora_rank: int = Field(8, ge=1, le=512, description="Rank of every LoRA pair, in dimensions.")
    lora_alpha: float = Field(
        32, gt=0, le=4096, description="LoRA scale: updates are multiplied by alpha / rank."
    )
    lora_dropout: float = Field(
        0.05, ge=0, lt=1, description="Share of a LoRA input's values dropped in training."
    )
    use_rslora: bool = Field(
        False, description="Scale by alpha / sqrt(rank), which keeps high ranks stable."
    )
    use_dora: bool = Field(
        False, description="Train magnitudes apart from directions (DoRA); slower, no fast path."
    )
    target_modules: tuple[str, ...] = Field(
        (), description="Last names of the layers that get LoRA; empty: every linear but the head."
    )
    last_layers: int | None = Field(
        None, ge=1, description="LoRA on the last so many decoder layers only; null: on all."
    )
    extra_modules: tuple[str, ...] = Field(
        (),
        description="Last names of other modules to train whole, in 32 bit (embed_tokens, norm, "
        "input_layernorm); no fast path, and such an adapter can't be merged.",
    )
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="How the frozen base is stored: nf4 (4 bit, double quantized) or none."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="What is computed in; auto: bfloat16, float32 for none on a CPU."
    )
    batch_rows: int = Field(
        4, ge=1, le=65_536, description="Rows an optimizer step sees; not used with batch_tokens."
    )
    batch_tokens: int | None = Field(
        None,
        ge=1,
        le=16_777_216,
        description="Tokens an optimizer step sees, in whole packed windows; null: batch_rows.",
    )
    joined_tokens: int = Field(
        4096,
        ge=0,
        le=1_048_576,
        description="With batch_rows: rows of a step run joined, isolated from each other, up to "
        "so many tokens; 0: one by one, as in the original recipe (same result, slower).",
    )
    learning_rate: float = Field(
        2e-5, gt=0, le=1, description="Highest learning rate, reached after the warm-up."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the learning rate falls to 0 after the warm-up; constant: not."
    )
    warmup_steps: int = Field(
        20, ge=0, description="Optimizer steps in which the learning rate rises from 0."
    )
    max_steps: int | None = Field(
        2000, ge=1, description="Optimizer steps at most; null: as many as epochs give."
    )
    epochs: float | None = Field(
        None, gt=0, le=1000, description="Passes over the data at most; null: max_steps decides."
    )
    weight_decay: float = Field(
        0.01, ge=0, le=1, description="AdamW's decoupled weight decay, a share of learning rate."
    )
    max_grad_norm: float = Field(
        1.0, ge=0, description="Gradients are scaled down to this norm; 0: never."
    )
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "auto", description="auto: paged_adamw_8bit on a GPU, adamw (32 bit) on a CPU."
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of LoRA's start, dropout and order.")
    start: StartSettings = Field(
        default_factory=StartSettings, description="From the base, or on from the champion."
    )
    fast_path: Literal["auto", "off"] = Field(
        "auto", description="auto: the fused training step where it knows the model; off: peft's."
    )
    kept_layers: int | None = unkeyed(
        None,
        ge=0,
        description="Decoder layers that keep activations instead of computing them twice; "
        "null: chosen by device and free memory.",
    )
    offload_activations: bool = unkeyed(
        False,
        description="Let activations wait for the backward pass in the CPU's memory; slower, for "
        "samples too long for the GPU.",
    )
    tensorboard: bool = unkeyed(
        False, description="Write TensorBoard's event files beside the adapter, too."
    )
    validation_tokens: int | None = unkeyed(
        None, ge=1, description="Validation tokens measured each time, at most; null: all."
    )
    log_every: int = unkeyed(2, ge=1, description="Optimizer steps between lines of metrics.jsonl.")
    eval_every: int | None = unkeyed(
        None, ge=1, description="Optimizer steps between validations; null: start and end only."
    )
    checkpoint_every: int = unkeyed(
        100, ge=1, description="Optimizer steps between checkpoints, which a killed run resumes."
    )
    checkpoint_minutes: float = unkeyed(
        10, gt=0, description="Minutes after which a checkpoint is due, whatever the step."
    )

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.max_steps is None and self.epochs is None:
            raise ValueError(
                "max_steps and epochs are both null, so training would never end\n"
                "Set train.max_steps or train.epochs."
            )
        if self.max_steps is not None and self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} leaves nothing of max_steps {self.max_steps}\n"
                f"Set train.warmup_steps below {self.max_steps}."
            )
        return self
