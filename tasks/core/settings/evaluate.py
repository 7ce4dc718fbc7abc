"""Settings of the stage `evaluate`."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section, unkeyed


class GateSettings(Section):
    """When a tuned model counts as worse, and how sure that has to be."""

    loss_margin_percent: float = Field(
        1.0, ge=0, le=100, description="How much a loss may rise, in percent of the base's."
    )
    pass_margin_points: float = Field(
        3.0, ge=0, le=100, description="How far pass@1 may fall, in percentage points."
    )
    min_loss_gain_percent: float = Field(
        0.5, ge=0, le=100, description="Least fall of a loss that counts, in percent of the base's."
    )
    min_share_gain_points: float = Field(
        0.5, ge=0, le=100, description="Least rise of token accuracy or pass@1 that counts, points."
    )
    resamples: int = Field(
        10_000, ge=100, le=1_000_000, description="Draws of the bootstrap behind an interval."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of these draws.")


class EvaluateSettings(Section):
    """What is measured on base and tuned model, and how generated code is run."""

    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="How the frozen base is stored; set it as in train."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="What is computed in; auto: bfloat16, float32 for none on a CPU."
    )
    max_test_tokens: int | None = Field(
        None,
        ge=1,
        description="Held-out tokens that are measured at most, in whole rows; null: all.",
    )
    window_tokens: int = Field(
        4096, ge=1, le=1_048_576, description="Tokens of held-out rows that run joined."
    )
    samples: int = Field(
        8, ge=0, le=1000, description="Held-out prompts that both models answer, for the report."
    )
    humaneval_problems: int | None = Field(
        None, ge=0, le=164, description="HumanEval problems to try; null: all 164; 0: none."
    )
    styles: tuple[Literal["completion", "prompt"], ...] = Field(
        ("completion", "prompt"),
        description="How a problem is posed: completion (raw code to go on with), prompt (in the "
        "format of the training data).",
    )
    probe_problems: int | None = Field(
        None,
        ge=0,
        le=164,
        description="HumanEval texts whose loss shows forgetting; null: all 164; 0: none.",
    )
    max_new_tokens: int = Field(
        512, ge=1, le=16_384, description="Tokens that a model may write for one prompt."
    )
    generation_batch: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Prompts that are continued together, which greedy text can depend on in its "
        "last bits; null: as many as the GPU's free memory holds, 16 on a CPU.",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Chooses rows, prompts and problems where not all are used."
    )
    min_sandbox: Literal["bubblewrap", "unshare", "rlimits"] = Field(
        "unshare",
        description="Weakest isolation that generated code may run under; rlimits does not keep "
        "it from the user's files and network.",
    )
    require_humaneval: bool = Field(
        False,
        description="Fail where HumanEval can't be run (no sandbox, no data) instead of leaving "
        "pass@1 out and saying so.",
    )
    test_timeout_s: float = Field(
        4.0, gt=0, le=600, description="Least time for one program and its tests, in seconds."
    )
    test_memory_mib: int = Field(
        512, ge=64, le=65_536, description="Memory of one generated program, in MiB."
    )
    test_workers: int = unkeyed(
        0, ge=0, le=256, description="Programs that run at the same time; 0: one a core."
    )
    gate: GateSettings = Field(
        default_factory=GateSettings, description="What merge and promotion obey."
    )

    @model_validator(mode="after")
    def _styles(self) -> "EvaluateSettings":
        if len(set(self.styles)) != len(self.styles):
            raise ValueError(
                f"styles holds a style twice: {', '.join(self.styles)}\nName each style once."
            )
        if not self.styles and self.humaneval_problems != 0:
            raise ValueError(
                "styles is empty and HumanEval is asked for\n"
                "Name a style in evaluate.styles, or set evaluate.humaneval_problems to 0."
            )
        return self
