"""Settings of the train stage; the defaults are the numbers of the original recipe."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.core.settings.fields import Section, unkeyed


class StartSettings(Section):
    """Start of a training."""

    adapter: Literal["base", "champion"] = Field(
        "base",
        description="base: a fresh adapter; champion: training continues the promoted adapter "
        "with the rows that are new since, if there is a champion on the same base.",
    )
    replay_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="With champion: share of old rows among the training rows; 1: all old rows.",
    )


class TrainSettings(Section):
    """4-bit LoRA training: adapter, batch, schedule, memory, logging."""

    lora_rank: int = Field(8, ge=1, le=512, description="Rank of every LoRA pair, in dimensions.")
    lora_alpha: float = Field(
        32, gt=0, le=4096, description="LoRA scale: updates are multiplied by alpha / rank."
    )
    expert_rank: int | None = Field(
        None,
        ge=0,
        le=512,
        description="LoRA rank of each expert of a mixture of experts, without dropout; null: "
        "lora_rank divided by the experts that a token passes, so that a token trains about as "
        "much as in a dense model (0 with target_modules or DoRA); 0: experts are not trained.",
    )
    lora_dropout: float = Field(
        0.05, ge=0, lt=1, description="Share of a LoRA input's values dropped in training."
    )
    use_rslora: bool = Field(
        False, description="Scale by alpha / sqrt(rank), which keeps high ranks stable."
    )
    use_dora: bool = Field(
        False,
        description="Train magnitudes and directions separately (DoRA); slower, no fast path.",
    )
    target_modules: tuple[str, ...] = Field(
        (), description="Last names of the layers that get LoRA; empty: every linear but the head."
    )
    last_layers: int | None = Field(
        None,
        ge=1,
        description="Number of decoder layers that get LoRA, counted from the last; null: all.",
    )
    extra_modules: tuple[str, ...] = Field(
        (),
        description="Last names of other modules to train fully, in 32 bit (embed_tokens, norm, "
        "input_layernorm); no fast path, and such an adapter can't be merged.",
    )
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="Quantization of the frozen base: nf4 (4 bit, double quantized) or none."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="Compute type; auto: bfloat16, float16 on a GPU without it (RTX 20, T4, V100), "
        "float32 for quantization none on a CPU. float16: with loss scaling, no fast path.",
    )
    batch_rows: int = Field(
        4, ge=1, le=65_536, description="Rows per optimizer step; not used with batch_tokens."
    )
    batch_tokens: int | None = Field(
        None,
        ge=1,
        le=16_777_216,
        description="Tokens per optimizer step, in whole packed windows; null: batch_rows.",
    )
    joined_tokens: int = Field(
        4096,
        ge=0,
        le=1_048_576,
        description="With batch_rows: rows of a step run joined, isolated from each other, up to "
        "this many tokens; 0: one by one, as in the original recipe (same result, slower).",
    )
    loss_average: Literal["tokens", "rows"] = Field(
        "tokens",
        description="Loss of an optimizer step: tokens: the mean over its trained tokens; rows: "
        "the mean over its rows of the mean of each row, as in the original recipe, whose batches "
        "were one row.",
    )
    learning_rate: float = Field(
        2e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear",
        description="Decay of the learning rate to 0 after the warm-up; constant: no decay.",
    )
    warmup_steps: int = Field(
        20, ge=0, description="Optimizer steps in which the learning rate rises from 0 to its peak."
    )
    max_steps: int | Literal["auto"] | None = Field(
        2000,
        description="Limit in optimizer steps, at least 1; null: epochs decide; auto: steps, "
        "windows per step, warm-up and learning rate are computed from the number of tokens: "
        "three passes (or `epochs`) in at most 2,000 steps of up to batch_tokens, in smaller "
        "steps if there would be fewer than 100. `finetune plan` shows the numbers.",
    )
    epochs: float | None = Field(
        None, gt=0, le=1000, description="Limit in passes over the data; null: max_steps decides."
    )
    weight_decay: float = Field(
        0.01, ge=0, le=1, description="AdamW's decoupled weight decay, scaled by the learning rate."
    )
    max_grad_norm: float = Field(
        1.0, ge=0, description="Gradients are clipped to this norm; 0: never."
    )
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "auto", description="auto: paged_adamw_8bit on a GPU, adamw (32 bit) on a CPU."
    )
    seed: int = Field(
        42, ge=0, lt=2**32, description="Seed of initial LoRA weights, dropout, order."
    )
    start: StartSettings = Field(
        StartSettings(),
        description="A fresh adapter, or a warm start from the champion.",
    )
    fast_path: Literal["auto", "off"] = Field(
        "auto",
        description="auto: the fused training step if it supports the model; off: the step of "
        "transformers and PEFT.",
    )
    backward: Literal["bf16", "int8"] = Field(
        "bf16",
        description="Matrix products of the backward pass with frozen weights, in the fused "
        "step: bf16 (the compute type), or int8: rotated, then rounded to 8 bit, which adds a "
        "little noise to the gradients.",
    )
    kept_layers: int | None = unkeyed(
        None,
        ge=0,
        description="Decoder layers that keep their activations instead of recomputing them; "
        "null: chosen by device and free memory.",
    )
    offload_activations: bool = unkeyed(
        False,
        description="Keep activations in RAM until the backward pass; slower, for samples that "
        "are too long for the GPU.",
    )
    track_with: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...] = unkeyed(
        (),
        description="Experiment trackers that receive settings, metrics and verdict; they store "
        "them in tracking/ of the home folder unless their own variables name a server. Each is "
        "an extra.",
    )
    validation_tokens: int | None = unkeyed(
        None, ge=1, description="Limit of tokens per validation; null: all."
    )
    log_every: int = unkeyed(2, ge=1, description="Optimizer steps between lines of metrics.jsonl.")
    eval_every: int | None = unkeyed(
        None, ge=1, description="Optimizer steps between validations; null: start and end only."
    )
    checkpoint_every: int = unkeyed(
        100,
        ge=1,
        description="Optimizer steps between checkpoints, from which a killed run resumes.",
    )
    checkpoint_minutes: float = unkeyed(
        10,
        gt=0,
        description="Longest time between checkpoints in minutes, whatever checkpoint_every is.",
    )

    @field_validator("max_steps", mode="before")
    @classmethod
    def _is_number_or_auto(cls, value: Any) -> Any:
        # not bounds of the types, each of which would report another error
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not (is_number or value in (None, "auto")):
            raise ValueError(
                f"{value!r} is neither a number of at least 1 nor auto nor null\n"
                "Set train.max_steps to a number such as 2000, or to auto."
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_steps is None and self.epochs is None:
            raise ValueError(
                "max_steps and epochs are both null, so training would not end\n"
                "Set train.max_steps or train.epochs."
            )
        if self.use_dora and self.expert_rank:
            raise ValueError(
                f"expert_rank is {self.expert_rank} and use_dora is on, which experts can't have\n"
                "Set train.expert_rank to null or train.use_dora to false."
            )
        if self.max_steps == "auto" and self.batch_tokens is None:
            raise ValueError(
                "max_steps is auto and batch_tokens is null, which auto divides the tokens by\n"
                "Set train.batch_tokens, for example to 16384, or train.max_steps to a number."
            )
        if isinstance(self.max_steps, int) and self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps} and max_steps {self.max_steps}\n"
                f"Set train.warmup_steps below {self.max_steps}."
            )
        return self
