"""Settings of the stage `ingest`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.settings.fields import Section

SPDX_PATTERN = r"^[A-Za-z0-9.+() -]*$"
COMMIT = "^[0-9a-f]{40}$"
Text = Literal["instruction", "input", "output"]


class AnySource(Section):
    """What all sources have in common."""

    name: str = Field(
        "", description="Name in tables and reports. Empty: made from the other fields."
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the rows that is kept, an even sample chosen by row id, 0..1; a row "
        "that is kept at one weight is kept at every higher one.",
    )
    max_rows: int | None = Field(
        None,
        ge=1,
        description="At most so many rows of those, an even sample chosen by row id. null: all.",
    )


class Columns(Section):
    """What the columns (JSON keys) of a file are called."""

    instruction: str = Field(
        "instruction", min_length=1, description="Column of the task in words."
    )
    input: str = Field(
        "input", min_length=1, description="Column of what the task works on; may be absent."
    )
    output: str = Field("output", min_length=1, description="Column of the answer to learn.")
    project: str | None = Field(
        None,
        description="Column of a group that train and test must not share. None: each row its own.",
    )
    licence: str | None = Field(
        None, description="Column of an SPDX expression. None: `licence` of the source."
    )


class RecordSource(AnySource):
    """What sources of records with columns have in common."""

    columns: Columns = Field(default_factory=Columns, description="Column names.")
    required: tuple[Text, ...] = Field(
        ("instruction", "output"),
        description="Texts that every row must have and that may not be empty.",
    )
    licence: str = Field(
        "", pattern=SPDX_PATTERN, description="SPDX licence of the rows, by your statement."
    )


class FilesSource(RecordSource):
    """Instruction files: JSONL, JSON, CSV (TSV), Parquet."""

    kind: Literal["files"] = Field("files", description="What the source is.")
    path: str = Field(
        "data/sample",
        min_length=1,
        description="File, folder or glob; a relative one starts at FINETUNE_HOME.",
    )


class HuggingFaceSource(RecordSource):
    """A data set in a form that the library `datasets` reads: a local folder, or one on the hub."""

    kind: Literal["huggingface"] = Field("huggingface", description="What the source is.")
    path: str | None = Field(
        None,
        min_length=1,
        description="Local folder: files of a data set, or what save_to_disk wrote; a relative one "
        "starts at FINETUNE_HOME.",
    )
    hub_id: str | None = Field(
        None,
        pattern="^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$",
        description="Data set on the Hugging Face hub, used when path is not given.",
    )
    revision: str | None = Field(
        None,
        pattern=COMMIT,
        description="Commit of hub_id, 40 hex digits. null: pinned at first use in data/pins.json.",
    )
    subset: str | None = Field(
        None, min_length=1, description="Configuration of the data set. null: its default one."
    )
    split: str = Field("train", min_length=1, description="Split to read.")

    @model_validator(mode="after")
    def _one_place(self) -> "HuggingFaceSource":
        if (self.path is None) == (self.hub_id is None):
            found = "neither path nor hub_id" if self.path is None else "both path and hub_id"
            raise ValueError(
                f"{found} is given, wanted one of them\n"
                "Set `path` to a local folder or `hub_id` to a data set on the hub."
            )
        return self


class CodeSource(AnySource):
    """What sources of Python code have in common."""

    docstring: Literal["drop", "keep"] = Field(
        "drop",
        description="Whether the output keeps the docstring that the instruction is made from.",
    )
    methods: bool = Field(True, description="Take methods of classes too, not only functions.")
    include_tests: bool = Field(False, description="Take test files and folders too.")


class PackagesSource(CodeSource):
    """Documented functions of installed packages; nothing is imported or run."""

    kind: Literal["packages"] = Field("packages", description="What the source is.")
    names: tuple[str, ...] = Field(
        ("python",),
        description='Installed distributions; "python" is the standard library.',
    )


class FolderSource(CodeSource):
    """Documented functions of a source tree."""

    kind: Literal["folder"] = Field("folder", description="What the source is.")
    path: str = Field(
        "data/raw", min_length=1, description="Folder; a relative one starts at FINETUNE_HOME."
    )
    licence: str = Field(
        "",
        pattern=SPDX_PATTERN,
        description="SPDX licence where neither a file's header nor a LICENSE file tells one.",
    )


class GitSource(CodeSource):
    """Documented functions of a git repository at a commit, and its commits as edits."""

    kind: Literal["git"] = Field("git", description="What the source is.")
    path: str = Field(
        "data/raw",
        min_length=1,
        description="Repository, with or without a working tree (which is never read); a relative "
        "one starts at FINETUNE_HOME.",
    )
    revision: str = Field(
        "HEAD",
        min_length=1,
        description="Commit, tag or branch; resolved to its commit whenever a run is planned.",
    )
    functions: bool = Field(True, description="Take documented functions of the tree.")
    commits: bool = Field(
        False,
        description="Take commits that change one Python file as edits: subject, file before, "
        "file after.",
    )
    min_edit_tokens: int = Field(
        50, ge=0, description="Words and signs of an edited file, before and after: at least."
    )
    max_edit_tokens: int = Field(
        768, ge=1, description="Words and signs of an edited file, before and after: at most."
    )
    licence: str = Field(
        "",
        pattern=SPDX_PATTERN,
        description="SPDX licence where neither a file's header nor a LICENSE file tells one.",
    )

    @model_validator(mode="after")
    def _takes_something(self) -> "GitSource":
        if not (self.functions or self.commits):
            raise ValueError(
                "functions and commits are both false, which takes nothing\n"
                "Set `functions` or `commits` to true."
            )
        return self


Source = Annotated[
    FilesSource | HuggingFaceSource | PackagesSource | FolderSource | GitSource,
    Field(discriminator="kind"),
]


class IngestSettings(Section):
    """Where rows come from."""

    sources: tuple[Source, ...] = Field(
        (FilesSource(name="sample", path="data/sample", licence="CC0-1.0"),),
        description="Sources, in order: `kind` is files, huggingface, packages, folder or git.",
    )

    doctests: bool = Field(
        False,
        description="Run the doctests of functions that need nothing but the standard library, in "
        "the sandbox, and mark those that pass; about 0.1 s for each function.",
    )
    doctest_timeout_s: float = Field(
        5.0, gt=0, le=300, description="Time for the doctests of one function, in seconds."
    )
    min_sandbox: Literal["bubblewrap", "unshare", "rlimits"] = Field(
        "unshare", description="Weakest isolation that doctests may run in."
    )

    @field_validator("sources")
    @classmethod
    def _is_not_empty(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        # min_length would complain a second time wherever an item is wrong
        if not sources:
            raise ValueError(
                "no source\nName at least one, such as {kind: files, path: data/sample}."
            )
        return sources
