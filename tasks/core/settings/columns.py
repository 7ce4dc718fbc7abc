"""Columns and formats of the records that the stage `ingest` reads."""

from typing import Literal

from pydantic import Field

from tasks.core.settings.fields import Section

Text = Literal["instruction", "input", "output"]
RowFormatName = Literal[
    "instruction",
    "alpaca",
    "messages",
    "sharegpt",
    "prompt_completion",
    "preference",
    "rated",
    "ranked",
    "segments",
    "text",
]


class Columns(Section):
    """Columns (JSON keys) of a file, each by name, by path or as a template: `answer`,
    `answers.0.body`, `"{title}\\n\\n{body}"`. null: found by its usual names."""

    instruction: str | None = Field(None, min_length=1, description="Column of the task.")
    input: str | None = Field(
        None, min_length=1, description="Column of the input text of the task."
    )
    output: str | None = Field(None, min_length=1, description="Column of the answer to learn.")
    system: str | None = Field(None, min_length=1, description="Column of the system text.")
    history: str | None = Field(
        None, min_length=1, description="Column of earlier turns: [question, answer] pairs."
    )
    messages: str | None = Field(
        None, min_length=1, description="Column of a conversation: a list of messages."
    )
    tools: str | None = Field(
        None, min_length=1, description="Column of the tools that a conversation may call."
    )
    prompt: str | None = Field(
        None, min_length=1, description="Column of a prompt: text, or a list of messages."
    )
    completion: str | None = Field(
        None, min_length=1, description="Column of its completion: text, or a list of messages."
    )
    chosen: str | None = Field(
        None,
        min_length=1,
        description="Column of the preferred answer of a pair, or of a list of ranked answers.",
    )
    rejected: str | None = Field(
        None, min_length=1, description="Column of the other answer of a pair; never trained on."
    )
    label: str | None = Field(
        None, min_length=1, description="Column that states whether a completion is a good one."
    )
    text: str | None = Field(None, min_length=1, description="Column of text to learn as a whole.")
    segments: str | None = Field(
        None, min_length=1, description="Column of a list of texts, each with its own mask."
    )
    project: str | None = Field(
        None,
        min_length=1,
        description="Column of a group that train and test must not share. null: each row is one.",
    )
    licence: str | None = Field(
        None,
        min_length=1,
        description="Column of an SPDX expression. null: `licence` of the source.",
    )
