"""Settings of the stage `ingest`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.settings.columns import Columns, RowFormatName, Text
from tasks.core.settings.fields import COMMIT, Section

SPDX_PATTERN = r"^[A-Za-z0-9.+() -]*$"


class AnySource(Section):
    """Fields of all sources."""

    name: str = Field(
        "", description="Name in tables and reports. Empty: derived from the other fields."
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Up to 1, the share of the rows to keep: a uniform sample by row id; a row "
        "that is kept at one weight is kept at every higher one. Above 1, how often the rows of a "
        "small source are repeated in training; validation and test do not repeat rows.",
    )
    max_rows: int | None = Field(
        None,
        ge=1,
        description="Maximum number of those rows: a uniform sample by row id. null: all.",
    )


class RecordSource(AnySource):
    """Fields of sources of records with columns."""

    format: RowFormatName | None = Field(
        None, description="Format of the rows. null: detected from the first records of each file."
    )
    take: Literal["chosen"] | None = Field(
        None,
        description="Answers of preference pairs to train on. null: a file of pairs is an error.",
    )
    columns: Columns = Field(Columns(), description="Columns to read.")
    required: tuple[Text, ...] = Field(
        ("instruction", "output"),
        description="Texts that every row of the format `instruction` must have.",
    )
    licence: str = Field(
        "", pattern=SPDX_PATTERN, description="SPDX license of the rows, as you state it."
    )


class FilesSource(RecordSource):
    """Data files: JSONL, JSON, CSV, TSV and Parquet, also compressed."""

    kind: Literal["files"] = Field("files", description="Kind of the source.")
    path: str = Field(
        "data/sample",
        min_length=1,
        description="File, folder or glob; relative to FINETUNE_HOME.",
    )


class HuggingFaceSource(RecordSource):
    """A data set that the library `datasets` reads: a local folder, or one on the hub."""

    kind: Literal["huggingface"] = Field("huggingface", description="Kind of the source.")
    path: str | None = Field(
        None,
        min_length=1,
        description="Local folder: files of a data set, or the output of save_to_disk; relative to "
        "FINETUNE_HOME.",
    )
    hub_id: str | None = Field(
        None,
        pattern="^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$",
        description="Data set on the Hugging Face hub; instead of `path`.",
    )
    revision: str | None = Field(
        None,
        pattern=COMMIT,
        description="Commit of hub_id, 40 hex digits. null: pinned in data/pins.json at first use.",
    )
    subset: str | None = Field(
        None, min_length=1, description="Configuration (subset) of the data set. null: its default."
    )
    split: str = Field("train", min_length=1, description="Split to read.")

    @model_validator(mode="after")
    def _one_place(self) -> "HuggingFaceSource":
        if (self.path is None) == (self.hub_id is None):
            found = "neither path nor hub_id" if self.path is None else "both path and hub_id"
            raise ValueError(
                f"{found} is given, exactly one is needed\n"
                "Set `path` to a local folder or `hub_id` to a data set on the hub."
            )
        return self


RowType = Literal["functions", "files", "fill", "context"]
LanguageName = Literal[
    "python",
    "javascript",
    "typescript",
    "tsx",
    "go",
    "rust",
    "java",
    "c",
    "cpp",
    "csharp",
    "ruby",
    "php",
    "kotlin",
    "scala",
    "bash",
    "dart",
    "elixir",
    "haskell",
    "julia",
    "lua",
    "perl",
    "powershell",
    "r",
    "sql",
    "swift",
    "zig",
    "css",
    "html",
    "markdown",
    "toml",
    "yaml",
]


class CodeColumns(Section):
    """What the columns of a code source hold."""

    project: Literal["source", "top", "folder", "file"] | None = Field(
        None,
        description="Unit that counts as one project: the whole source, a top folder, a folder, "
        "or a file. null: a package; a git repository; a folder that contains code or a project "
        "file; otherwise each of its top folders.",
    )


class Shares(Section):
    """How often the rows of each row type are trained on, times the `weight` of the source: up to
    1, the share of them that is kept; above 1, how often they are repeated."""

    functions: float = Field(1.0, gt=0, le=100, description="Documented functions.")
    files: float = Field(1.0, gt=0, le=100, description="Whole files in windows.")
    fill: float = Field(1.0, gt=0, le=100, description="Code to fill in.")
    context: float = Field(1.0, gt=0, le=100, description="Windows of files with their context.")
    commits: float = Field(1.0, gt=0, le=100, description="Commits as edits.")


class CodeSource(AnySource):
    """Fields of sources of code."""

    columns: CodeColumns = Field(CodeColumns(), description="Columns of the rows.")
    rows: tuple[RowType, ...] = Field(
        ("functions",),
        min_length=1,
        description="Row types. functions: documentation -> function; files: whole files, cut "
        "into windows; fill: parts of files to fill in between prefix and suffix, for base models "
        "with infilling tokens; context: windows of files after the files that they import or "
        "their neighbors, in the base's own format for repositories.",
    )
    shares: Shares = Field(Shares(), description="Shares of the row types.")
    window_characters: int = Field(
        3000,
        ge=200,
        le=1_000_000,
        description="Maximum number of characters of a row of type files, fill or context (at "
        "most half of them before the file); a token has about three, and `tokenize.max_tokens` "
        "must hold them.",
    )
    path_line: bool = Field(
        False,
        description="Begin rows of type files and fill with a comment that contains the path of "
        "the file; write the same line when you use the model.",
    )
    holes: int = Field(2, ge=1, le=100, description="Rows of type fill for each window of a file.")
    character_holes: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the rows of type fill whose hole begins and ends at any character, "
        "as in requests of editors; the others are expressions, statements, blocks, function "
        "bodies and rests of lines.",
    )
    docstring: Literal["drop", "keep"] = Field(
        "drop",
        description="Whether the output keeps the docstring, whose first paragraph is the "
        "instruction.",
    )
    methods: bool = Field(True, description="Include methods of classes, not only functions.")
    include_tests: bool = Field(False, description="Include test files and folders.")


class FileTreeSource(CodeSource):
    """Fields of sources that are a tree of files in any language."""

    languages: tuple[LanguageName, ...] = Field(
        (), description="Languages to read. Empty: all but CSS, HTML, Markdown, TOML, YAML."
    )
    licence: str = Field(
        "",
        pattern=SPDX_PATTERN,
        description="SPDX license where neither a file's header nor a LICENSE file states one.",
    )


class PackagesSource(CodeSource):
    """Python code of installed packages; nothing is imported or executed."""

    kind: Literal["packages"] = Field("packages", description="Kind of the source.")
    names: tuple[str, ...] = Field(
        ("python",),
        description='Installed distributions; "python" is the standard library.',
    )


class FolderSource(FileTreeSource):
    """Code of the files in a folder."""

    kind: Literal["folder"] = Field("folder", description="Kind of the source.")
    path: str = Field("data/raw", min_length=1, description="Folder; relative to FINETUNE_HOME.")


class GitSource(FileTreeSource):
    """Code of a git repository at a commit, and its commits as edits."""

    kind: Literal["git"] = Field("git", description="Kind of the source.")
    path: str = Field(
        "data/raw",
        min_length=1,
        description="Repository, with or without a working tree, which is never read; relative to "
        "FINETUNE_HOME.",
    )
    revision: str = Field(
        "HEAD",
        min_length=1,
        description="Commit, tag or branch; resolved to a commit whenever a run is planned.",
    )
    rows: tuple[RowType | Literal["commits"], ...] = Field(  # type: ignore[assignment]
        ("functions",),
        min_length=1,
        description="As for a folder, and commits: those that change one source file, as edits "
        "with subject, file before and file after.",
    )
    min_edit_tokens: int = Field(
        50,
        ge=0,
        description="Minimum number of words and punctuation marks of an edited file, before and "
        "after.",
    )
    max_edit_tokens: int = Field(
        768,
        ge=1,
        description="Maximum number of words and punctuation marks of an edited file, before and "
        "after.",
    )


Source = Annotated[
    FilesSource | HuggingFaceSource | PackagesSource | FolderSource | GitSource,
    Field(discriminator="kind"),
]


class IngestSettings(Section):
    """Sources of rows, and the doctests of their functions."""

    sources: tuple[Source, ...] = Field(
        (FilesSource(name="sample", path="data/sample", licence="CC0-1.0"),),
        description="Sources, in order; `kind`: files, huggingface, packages, folder or git.",
    )

    doctests: bool = Field(
        False,
        description="Run the doctests of functions that need only the standard library, in the "
        "sandbox, and mark those that pass; about 0.1 s per function.",
    )
    doctest_timeout_s: float = Field(
        5.0, gt=0, le=300, description="Time limit of the doctests of one function, in seconds."
    )
    min_sandbox: Literal["bubblewrap", "unshare", "rlimits"] = Field(
        "unshare", description="Weakest isolation for doctests."
    )

    @field_validator("sources")
    @classmethod
    def _is_not_empty(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        # not min_length, which adds a second error wherever an item is invalid
        if not sources:
            raise ValueError(
                "no source\nAdd at least one, such as {kind: files, path: data/sample}."
            )
        return sources
