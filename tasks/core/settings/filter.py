"""Settings of the stage `filter`. The thresholds for code are those of The Stack v2 and StarCoder 2
(arXiv:2402.19173)."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section

Kind = Literal[
    "instruction",
    "conversation",
    "segments",
    "text",
    "function",
    "edit",
    "file",
    "fill",
    "context",
]

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
    "WTFPL",
    "Zlib",
)
# of data sets; those of OpenRAIL restrict what a model may be used for
DATA_LICENCES = (
    *("CC-BY-3.0", "CC-BY-4.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0"),
    *("ODC-By-1.0", "PDDL-1.0"),
    *("OpenRAIL", "OpenRAIL-M", "BigScience-OpenRAIL-M", "BigCode-OpenRAIL-M"),
    *("BigScience-BLOOM-RAIL-1.0", "CreativeML-OpenRAIL-M"),
)


class NearDuplicateSettings(Section):
    """Rows whose question (instruction and input) and whose answer are both almost the same. Text
    that many rows of a source share, such as a preamble or a schema, does not count.

    MinHash finds candidate pairs; the true Jaccard similarity J of their word n-grams decides. The
    probability that a pair becomes a candidate is 1 - (1 - J^rows_per_band)^bands: with 42 bands of
    6 rows it is 0.99 at J = 0.7. With the common 25 bands of 10 rows it is 0.51 there and 0.94 at
    0.8, for fewer comparisons.
    """

    enabled: bool = Field(True, description="Whether near duplicates are removed.")
    jaccard: float = Field(
        0.7, ge=0.3, le=1, description="Lowest Jaccard similarity of two duplicates, 0..1."
    )
    ngram_words: int = Field(5, ge=1, le=20, description="Words of an n-gram.")
    permutations: int = Field(256, ge=16, le=2048, description="Hashes of a MinHash signature.")
    bands: int = Field(42, ge=1, le=512, description="Bands of a signature.")
    rows_per_band: int = Field(
        6, ge=1, le=64, description="Hashes of a band; all of them must be equal."
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
        description="Replaced by a placeholder: tokens and passwords of well-known formats, "
        "e-mail addresses, public IP addresses.",
    )
    drop_private_keys: bool = Field(
        True, description="Reject rows with a private key block; it is redacted in any case."
    )


class BenchmarkFile(Section):
    """Your own problems that must not be trained on: a JSONL file, one problem per line."""

    path: str = Field(
        ..., min_length=1, description="JSONL file; a relative path is relative to FINETUNE_HOME."
    )
    id: str = Field(
        "task_id", description="Key of the problem's name; without it, the line number."
    )
    prompt: str = Field("prompt", description="Key of the problem's text.")
    solution: str = Field("canonical_solution", description="Key of the answer; optional.")
    tests: str = Field("test", description="Key of tests that define check(); optional.")
    entry: str = Field("entry_point", description="Key of the function's name; optional.")


class DecontaminationSettings(Section):
    """Rows that hold a problem of a benchmark. The measure is the share of the problem that the row
    holds, so text around it does not hide it. The stage prompt searches in the same way for the
    problems that it holds out itself."""

    benchmarks: tuple[Literal["humaneval"], ...] = Field(
        ("humaneval",),
        description="Known benchmarks, read from their installed package; a missing one is "
        "reported.",
    )
    files: tuple[BenchmarkFile, ...] = Field((), description="Your own benchmark files.")
    require_benchmarks: bool = Field(
        False, description="Fail if a benchmark's data is not installed, instead of reporting it."
    )
    min_substring_characters: int = Field(
        40,
        ge=20,
        description="Shortest text of a problem, without whitespace, that counts as a match.",
    )
    ngram_words: int = Field(10, ge=5, le=50, description="Words of an n-gram.")
    max_containment: float = Field(
        0.5,
        gt=0,
        le=1,
        description="A row with this share of the n-grams of a problem's text is rejected, 0..1.",
    )
    syntax_trees: bool = Field(
        True, description="Compare functions without regard to identifiers and formatting."
    )
    execution: bool = Field(
        False,
        description="Run functions against the problems' tests in the sandbox; takes tens of "
        "milliseconds per function.",
    )
    max_executions: int = Field(
        2_000,
        ge=1,
        description="Maximum number of functions to run, chosen by a hash of the row's id.",
    )
    execution_timeout_s: float = Field(
        3.0, gt=0, le=60, description="Time for one function and all tests, in seconds."
    )


class FilterSettings(Section):
    """Which rows are kept. Thresholds for code apply to code from files and to fenced code blocks
    of an answer, not to prose, data or code outside of a block."""

    max_lines: int = Field(100_000, ge=1, description="Maximum lines of the output.")
    max_mean_line: float = Field(
        100.0, gt=0, description="Maximum mean length of the lines of code, in characters."
    )
    max_longest_line: int = Field(1_000, ge=1, description="Maximum characters of a code line.")
    min_alphabetic_share: float = Field(
        0.25, ge=0, le=1, description="Minimum share of the code's characters that are letters."
    )
    generated_markers: tuple[str, ...] = Field(
        (
            "auto-generated",
            "autogenerated",
            "automatically generated",
            "generated automatically",
            "this file is generated",
        ),
        description="Markers of generated code, without regard to case.",
    )
    generated_marker_lines: int = Field(
        5, ge=0, description="First lines of the code that are searched for the markers."
    )
    max_encoded_characters: int = Field(
        1_024,
        ge=0,
        description="Maximum characters of a run of encoded data (base64, hex, \\u escapes).",
    )
    max_encoded_share: float = Field(
        0.5, ge=0, le=1, description="Maximum share of the code that is encoded data."
    )
    require_python: tuple[Kind, ...] = Field(
        ("function",), description="Kinds of rows whose output must parse as Python."
    )
    min_function_returns: int = Field(
        1, ge=0, description="Minimum `return` statements with a value in a function."
    )
    min_function_arguments: int = Field(
        1, ge=0, description="Minimum arguments of a function, without self and cls."
    )
    min_docstring_characters: int = Field(
        20, ge=0, description="Minimum length of a function's docstring, in characters."
    )
    min_docstring_words: int = Field(4, ge=0, description="Minimum words of a docstring.")
    require_executable: bool = Field(
        False,
        description="Reject functions whose doctests did not pass (ingest.doctests); rows of "
        "other kinds are kept.",
    )
    base_loss: bool = Field(
        False,
        description="Measure the loss of the base model on each row, in one cached pass, for the "
        "rule base_loss and for the rows with the highest loss in `finetune show filter`. Takes "
        "the time to load the base and of one forward pass per row.",
    )
    max_base_loss: float = Field(
        100.0,
        gt=0,
        description="With base_loss: highest mean loss of the base on an output, in nats per "
        "token. 100: none is rejected; 3.0 is strict for code.",
    )
    max_function_lines: int = Field(150, ge=1, description="Maximum lines of a function.")
    licences: tuple[str, ...] = Field(
        (*PERMISSIVE, *DATA_LICENCES), description="SPDX licenses that are allowed."
    )
    more_licences: tuple[str, ...] = Field(
        (), description="More licenses that are allowed, in addition to `licences`."
    )
    keep_unknown_licence: tuple[Kind, ...] = Field(
        ("instruction", "conversation", "segments", "text"),
        description="Kinds of rows that are kept without a known license. By default data files, "
        "which are your own.",
    )
    exact_duplicates: bool = Field(
        True,
        description="Remove a row with the same question (instruction and input) and the same "
        "answer as another one. Whitespace at the ends of lines does not count.",
    )
    max_answers: int | None = Field(
        10,
        ge=1,
        description="Maximum number of rows with the same question and different answers, such "
        "as several solutions of one task; the best ones are kept. null: all.",
    )
    near_duplicates: NearDuplicateSettings = Field(
        NearDuplicateSettings(), description="Rows that are almost the same."
    )
    privacy: PrivacySettings = Field(PrivacySettings(), description="Secrets and personal data.")
    decontamination: DecontaminationSettings = Field(
        DecontaminationSettings(), description="Problems of benchmarks."
    )
