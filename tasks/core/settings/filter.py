"""Settings of the stage `filter`. The thresholds for code are those of The Stack v2 and
StarCoder2."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section

Kind = Literal["function", "instruction", "edit"]

PERMISSIVE = (
    "0BSD",
    "Apache-2.0",
    "BlueOak-1.0.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "HPND",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "NCSA",
    "PostgreSQL",
    "PSF-2.0",
    "Python-2.0",
    "Unlicense",
    "Zlib",
)


class NearDuplicateSettings(Section):
    """Rows that are almost the same, instruction, input and output taken together.

    MinHash proposes pairs, the true Jaccard similarity of their word n-grams decides. The chance
    that a pair is proposed is 1 - (1 - J^rows_per_band)^bands: at 42 bands of 6 rows it is 0.99 at
    J = 0.7; at the 25 bands of 10 that are often used it is 0.51 there and 0.94 at 0.8, for fewer
    checks.
    """

    enabled: bool = Field(True, description="Whether near duplicates are removed.")
    jaccard: float = Field(
        0.7, ge=0.3, le=1, description="Least Jaccard similarity of two duplicates, 0..1."
    )
    ngram_words: int = Field(5, ge=1, le=20, description="Words of an n-gram.")
    permutations: int = Field(256, ge=16, le=2048, description="Hashes of a MinHash signature.")
    bands: int = Field(42, ge=1, le=512, description="Bands that a signature is cut into.")
    rows_per_band: int = Field(
        6, ge=1, le=64, description="Hashes of a band; all of them must agree."
    )

    @model_validator(mode="after")
    def _bands_fit(self) -> "NearDuplicateSettings":
        if self.bands * self.rows_per_band > self.permutations:
            raise ValueError(
                f"{self.bands} bands of {self.rows_per_band} rows need "
                f"{self.bands * self.rows_per_band} permutations, there are {self.permutations}\n"
                "Lower bands or rows_per_band, or raise permutations."
            )
        return self


class PrivacySettings(Section):
    """Secrets and personal data in the texts of a row."""

    redact: tuple[Literal["secret", "email", "ip"], ...] = Field(
        ("secret", "email", "ip"),
        description="What a placeholder takes the place of: tokens and passwords of well-known "
        "formats, e-mail addresses, public IP addresses.",
    )
    drop_private_keys: bool = Field(
        True, description="Reject rows that hold a private key block; it is redacted in any case."
    )


class BenchmarkFile(Section):
    """Your own tasks that must not be trained on: a JSONL file, one task a line."""

    path: str = Field(
        ..., min_length=1, description="JSONL file; a relative path starts at FINETUNE_HOME."
    )
    id: str = Field("task_id", description="Key of the task's name; else its line number.")
    prompt: str = Field("prompt", description="Key of the task's text.")
    solution: str = Field("canonical_solution", description="Key of the answer; may be absent.")
    tests: str = Field("test", description="Key of tests that define check(); may be absent.")
    entry: str = Field("entry_point", description="Key of the function's name; may be absent.")


class DecontaminationSettings(Section):
    """Rows that hold a task of a benchmark; what is measured is how much of the task a row holds,
    so a wrapper around it does not hide it. The stage prompt looks in the same way for the problems
    that it holds out itself."""

    benchmarks: tuple[Literal["humaneval"], ...] = Field(
        ("humaneval",),
        description="Known benchmarks, read from their installed package; a missing one is told.",
    )
    files: tuple[BenchmarkFile, ...] = Field((), description="Your own benchmark files.")
    require_benchmarks: bool = Field(
        False, description="Fail where a benchmark's data is not installed, instead of telling it."
    )
    min_substring_characters: int = Field(
        40,
        ge=20,
        description="Shortest text of a task, whitespace aside, that counts where a row holds it.",
    )
    ngram_words: int = Field(10, ge=5, le=50, description="Words of an n-gram.")
    max_containment: float = Field(
        0.5,
        gt=0,
        le=1,
        description="A row is rejected from this share of the n-grams of a task's text, 0..1.",
    )
    syntax_trees: bool = Field(
        True, description="Compare functions with identifiers renamed and formatting aside."
    )
    execution: bool = Field(
        False,
        description="Run functions against the tasks' tests in the sandbox; tens of milliseconds "
        "for each function.",
    )
    max_executions: int = Field(
        2_000, ge=1, description="Functions run at most, chosen by a hash of the row's id."
    )
    execution_timeout_s: float = Field(
        3.0, gt=0, le=60, description="Time for one function and all tests, in seconds."
    )


class FilterSettings(Section):
    """Which rows are kept. Rules about code look at the output of a row."""

    max_lines: int = Field(100_000, ge=1, description="Lines of the output.")
    max_mean_line: float = Field(
        100.0, gt=0, description="Mean length of the output's lines in characters."
    )
    max_longest_line: int = Field(
        1_000, ge=1, description="Longest line of the output in characters."
    )
    min_alphabetic_share: float = Field(
        0.25, ge=0, le=1, description="Share of the output's characters that are letters."
    )
    generated_markers: tuple[str, ...] = Field(
        (
            "auto-generated",
            "autogenerated",
            "automatically generated",
            "generated automatically",
            "this file is generated",
        ),
        description="Words that tell generated code, in any case.",
    )
    generated_marker_lines: int = Field(
        5, ge=0, description="First lines of the output looked at for the markers."
    )
    max_encoded_characters: int = Field(
        1_024,
        ge=0,
        description="Longest run of encoded data (base64, hex, \\u escapes) in characters.",
    )
    max_encoded_share: float = Field(
        0.5, ge=0, le=1, description="Share of the output that is encoded data."
    )
    require_python: tuple[Kind, ...] = Field(
        ("function",), description="Kinds of rows whose output must parse as Python."
    )
    min_function_returns: int = Field(
        1, ge=0, description="`return` statements of a function that give a value."
    )
    min_function_arguments: int = Field(
        1, ge=0, description="Arguments of a function, self and cls not counted."
    )
    min_docstring_characters: int = Field(
        20, ge=0, description="Length of a function's docstring in characters."
    )
    min_docstring_words: int = Field(4, ge=0, description="Words of a function's docstring.")
    require_executable: bool = Field(
        False,
        description="Reject functions whose doctests did not pass (ingest.doctests); rows of other "
        "kinds stay.",
    )
    max_function_lines: int = Field(150, ge=1, description="Lines of a function.")
    licences: tuple[str, ...] = Field(PERMISSIVE, description="SPDX licences that are allowed.")
    keep_unknown_licence: tuple[Kind, ...] = Field(
        ("instruction",),
        description="Kinds of rows that need no known licence: instruction files are your own.",
    )
    deduplicate: tuple[Literal["instruction", "output"], ...] = Field(
        ("instruction", "output"),
        description="Texts that no two kept rows share, whitespace and comments aside; "
        "an instruction counts together with its input.",
    )
    near_duplicates: NearDuplicateSettings = Field(
        default_factory=NearDuplicateSettings, description="Rows that are almost the same."
    )
    privacy: PrivacySettings = Field(
        default_factory=PrivacySettings, description="Secrets and personal data."
    )
    decontamination: DecontaminationSettings = Field(
        default_factory=DecontaminationSettings, description="Tasks of benchmarks."
    )
