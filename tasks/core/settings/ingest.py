"""Settings of the stage `ingest`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tasks.core.settings.fields import Section

SPDX_PATTERN = r"^[A-Za-z0-9.+() -]*$"
Text = Literal["instruction", "input", "output"]


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


class FilesSource(Section):
    """Instruction files: JSONL, JSON, CSV (TSV), Parquet."""

    kind: Literal["files"] = Field("files", description="What the source is.")
    name: str = Field(
        "", description="Name in tables and reports. Empty: the last part of the path."
    )
    path: str = Field(
        "data/sample",
        min_length=1,
        description="File, folder or glob; a relative one starts at FINETUNE_HOME.",
    )
    columns: Columns = Field(default_factory=Columns, description="Column names.")
    required: tuple[Text, ...] = Field(
        ("instruction", "output"),
        description="Texts that every row must have and that may not be empty.",
    )
    licence: str = Field(
        "", pattern=SPDX_PATTERN, description="SPDX licence of the rows, by your statement."
    )
    max_rows: int | None = Field(
        None,
        ge=1,
        description="At most so many rows, an even sample chosen by row id. None: all.",
    )


class CodeSource(Section):
    """What sources of Python code have in common."""

    name: str = Field(
        "", description="Name in tables and reports. Empty: made from the other fields."
    )
    docstring: Literal["drop", "keep"] = Field(
        "drop",
        description="Whether the output keeps the docstring that the instruction is made from.",
    )
    methods: bool = Field(True, description="Take methods of classes too, not only functions.")
    include_tests: bool = Field(False, description="Take test files and folders too.")
    max_rows: int | None = Field(
        None,
        ge=1,
        description="At most so many rows, an even sample chosen by row id. None: all.",
    )


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


Source = Annotated[FilesSource | PackagesSource | FolderSource, Field(discriminator="kind")]


class IngestSettings(Section):
    """Where rows come from."""

    sources: tuple[Source, ...] = Field(
        (FilesSource(name="sample", path="data/sample", licence="CC0-1.0"),),
        description="Sources, in order: `kind` is files, packages or folder.",
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
