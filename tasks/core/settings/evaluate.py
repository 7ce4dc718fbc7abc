"""Settings of the stage `evaluate`."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.settings.fields import Section, unkeyed

TAKEN = ("held-out", "humaneval", "infilling", "samples")  # names of what is measured anyway


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


class EvaluationSet(Section):
    """A JSONL file of yours to measure on, see evaluation.md; keyed by its content."""

    name: str = Field(
        pattern="^[a-z0-9][a-z0-9_-]{0,39}$",
        description="What reports call it: small letters, digits, - and _.",
    )
    path: str = Field(min_length=1, description="The file; a relative path starts at the home.")
    kind: Literal["tests", "answers"] = Field(
        "tests",
        description="tests: prompts whose answers are run against tests; answers: prompts with "
        "reference answers, measured by loss and exact match.",
    )
    max_problems: int | None = Field(
        None, ge=1, description="Use so many lines at most, from the top; null: all."
    )


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
    held_out_problems: int | None = Field(
        None,
        ge=0,
        description="Held-out functions with doctests to try (prompt.max_problems); null: all; "
        "0: none.",
    )
    sets: tuple[EvaluationSet, ...] = Field((), description="Your own evaluation sets.")
    attempts: int = Field(
        1, ge=1, le=1000, description="Answers to each problem with tests; 1: one each."
    )
    pass_at: tuple[int, ...] = Field(
        (1, 10, 100),
        description="The k of pass@k that are reported, where there are as many attempts.",
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Of answers to problems with tests; 0: the likeliest token, always the same.",
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Share of the probability that is drawn from, 0..1."
    )
    infilling_problems: int | None = Field(
        None,
        ge=0,
        le=164,
        description="HumanEval solutions with a line to fill in, where the tokenizer has tokens "
        "for that; null: all 164; 0: none.",
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

    @field_validator("sets")
    @classmethod
    def _named_once(cls, sets: tuple[EvaluationSet, ...]) -> tuple[EvaluationSet, ...]:
        names = [own.name for own in sets]
        if taken := sorted({n for n in names if n in TAKEN or names.count(n) > 1}):
            raise ValueError(
                f"two sets are called {', '.join(taken)}, or it is a name of another measurement\n"
                "Give each set a name of its own."
            )
        return sets

    @model_validator(mode="after")
    def _attempts_differ(self) -> "EvaluateSettings":
        if self.attempts > 1 and self.temperature == 0:
            raise ValueError(
                f"attempts is {self.attempts} and temperature 0, so all would be the same\n"
                "Set evaluate.temperature, for example to 0.8."
            )
        if not all(k >= 1 for k in self.pass_at):
            raise ValueError("pass_at holds a number below 1\nName numbers of attempts.")
        return self

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
