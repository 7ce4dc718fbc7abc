"""Settings of the stage `evaluate`."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.settings.fields import Section, unkeyed

# names of built-in measurements
TAKEN = (
    "completion",
    "held-out",
    "humaneval",
    "infilling",
    "samples",
)


class GateSettings(Section):
    """Margins of the verdict: when a tuned model counts as better or worse than its base."""

    loss_margin_percent: float = Field(
        1.0, ge=0, le=100, description="How much a loss may rise, in percent of the base's."
    )
    pass_margin_points: float = Field(
        3.0, ge=0, le=100, description="How far pass@1 may fall, in percentage points."
    )
    min_loss_gain_percent: float = Field(
        0.5,
        ge=0,
        le=100,
        description="Smallest improvement of a loss that counts, in percent of the base's.",
    )
    min_share_gain_points: float = Field(
        0.5,
        ge=0,
        le=100,
        description="Smallest improvement of token accuracy or pass@1 that counts, in points.",
    )
    resamples: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="Draws from the null distribution, for intervals and p values.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of these draws.")


class EvaluationSet(Section):
    """A JSONL file with problems of your own, see evaluation.md; keyed by its content."""

    name: str = Field(
        pattern="^[a-z0-9][a-z0-9_-]{0,39}$",
        description="Its name in reports: lower-case letters, digits, - and _.",
    )
    path: str = Field(
        min_length=1, description="The file; a relative path is relative to the home folder."
    )
    kind: Literal["tests", "answers"] = Field(
        "tests",
        description="tests: prompts whose answers are run against tests; answers: prompts with "
        "reference answers, measured by loss and exact match.",
    )
    max_problems: int | None = Field(
        None, ge=1, description="Use at most this many lines, from the top; null: all."
    )
    mode: Literal["auto", "isolated", "together"] = Field(
        "auto",
        description="Where tests run: isolated (outside the answer's process: no answer can fake a "
        "pass, but only plain data can be passed), together (in its process: any test works), auto "
        "(isolated where the text of the test shows that it can be).",
    )
    packages: tuple[str, ...] = Field(
        (), description="Installed packages that answers and tests may import, such as numpy."
    )


class EvaluateSettings(Section):
    """Measurements of base and tuned model, and the sandbox of generated code."""

    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="Storage of the frozen base; use the same value as in train."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="Compute type; auto: bfloat16, float16 on a GPU without it, on a CPU float32 "
        "if quantization is none.",
    )
    split: Literal["test", "validation"] = Field(
        "test",
        description="Rows to measure. validation: for choosing between variants, as `finetune "
        "sweep` does, so that the test split stays unused.",
    )
    max_test_tokens: int | None = Field(
        None,
        ge=1,
        description="Limit of held-out tokens to measure, in whole rows; null: all.",
    )
    window_tokens: int = Field(
        4096, ge=1, le=1_048_576, description="Tokens of held-out rows packed into one window."
    )
    samples: int = Field(
        8, ge=0, le=1000, description="Held-out prompts that both models answer for the report."
    )
    humaneval_problems: int | None = Field(
        None, ge=0, le=164, description="Number of HumanEval problems; null: all 164; 0: none."
    )
    styles: tuple[Literal["completion", "prompt"], ...] = Field(
        ("completion", "prompt"),
        description="How a problem is posed: completion (raw code to continue), prompt (in the "
        "format of the training data).",
    )
    held_out_problems: int | None = Field(
        None,
        ge=0,
        description="Number of held-out functions with doctests (see prompt.max_problems); "
        "null: all; 0: none.",
    )
    sets: tuple[EvaluationSet, ...] = Field((), description="Your own evaluation sets.")
    attempts: int = Field(1, ge=1, le=1000, description="Answers to each problem with tests.")
    pass_at: tuple[int, ...] = Field(
        (1, 10, 100),
        description="The k of pass@k to report, where there are at least k attempts.",
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Sampling temperature of answers to problems with tests; 0: greedy.",
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Share of the probability mass to sample from, 0..1."
    )
    infilling_problems: int | None = Field(
        None,
        ge=0,
        le=164,
        description="HumanEval solutions with one masked line to fill in, if the tokenizer has "
        "infilling tokens; null: all 164; 0: none.",
    )
    completion_spans: int = Field(
        40,
        ge=0,
        le=1000,
        description="Spans of held-out code of each size (rest of line, statement, block, function "
        "body) that both models complete; 0: none.",
    )
    completion_context: int = Field(
        3000,
        ge=100,
        le=1_000_000,
        description="Characters of context around such a span; with the suffix, three quarters "
        "of them are before it.",
    )
    fill_order: Literal["prefix_first", "suffix_first"] = Field(
        "prefix_first",
        description="Order in which a model that fills in gets what is around a hole: the prefix "
        "first (PSM), as editors send it, or the suffix (SPM).",
    )
    probe_problems: int | None = Field(
        None,
        ge=0,
        le=164,
        description="Untouched texts of each kind whose loss shows forgetting: HumanEval, other "
        "programming languages, general instructions; null: all (164, 96 and 64); 0: none.",
    )
    probe_tokens: int = Field(
        256,
        ge=8,
        le=16_384,
        description="Tokens of each of these texts that are used, from its start.",
    )
    max_new_tokens: int = Field(
        512, ge=1, le=16_384, description="Limit of tokens generated for one prompt."
    )
    generation_batch: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Prompts decoded together; rounding depends on it and can change greedy "
        "text. null: as many as fit into free GPU memory, 16 on a CPU.",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="Seed of the selection of rows, prompts and problems if not all are used.",
    )
    min_sandbox: Literal["bubblewrap", "unshare", "rlimits"] = Field(
        "unshare",
        description="Weakest isolation for generated code; rlimits does not protect the user's "
        "files and network.",
    )
    require_humaneval: bool = Field(
        False,
        description="Fail if HumanEval can't be run (no sandbox, no data), instead of reporting "
        "that pass@1 is missing.",
    )
    test_timeout_s: float = Field(
        4.0,
        gt=0,
        le=600,
        description="Minimum time limit of one program with its tests, in seconds.",
    )
    test_memory_mib: int = Field(
        512, ge=64, le=65_536, description="Memory of one generated program, in MiB."
    )
    test_workers: int = unkeyed(
        0, ge=0, le=256, description="Programs that run at the same time; 0: one per core."
    )
    gate: GateSettings = Field(
        GateSettings(),
        description="Margins of the verdict, which decides about merge and promotion.",
    )

    @field_validator("sets")
    @classmethod
    def _named_once(cls, sets: tuple[EvaluationSet, ...]) -> tuple[EvaluationSet, ...]:
        names = [own.name for own in sets]
        if taken := sorted({n for n in names if n in TAKEN or names.count(n) > 1}):
            raise ValueError(
                f"two sets are called {', '.join(taken)}, or it is a name of another measurement\n"
                "Give each set a unique name."
            )
        return sets

    @model_validator(mode="after")
    def _attempts_differ(self) -> "EvaluateSettings":
        if self.attempts > 1 and self.temperature == 0:
            raise ValueError(
                f"attempts is {self.attempts} and temperature 0, so all attempts would be equal\n"
                "Set evaluate.temperature, for example to 0.8."
            )
        if not all(k >= 1 for k in self.pass_at):
            raise ValueError("pass_at contains a number below 1\nList numbers of attempts.")
        return self

    @model_validator(mode="after")
    def _styles(self) -> "EvaluateSettings":
        if len(set(self.styles)) != len(self.styles):
            raise ValueError(
                f"styles contains a style twice: {', '.join(self.styles)}\nName each style once."
            )
        if not self.styles and self.humaneval_problems != 0:
            raise ValueError(
                "styles is empty but humaneval_problems is not 0\n"
                "Name a style in evaluate.styles, or set evaluate.humaneval_problems to 0."
            )
        return self
