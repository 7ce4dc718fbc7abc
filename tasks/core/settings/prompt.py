"""Settings of the stage `prompt`."""

import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.settings.fields import Section
from tasks.core.text.prompt_templates import DATE, is_jinja, problem_of

CHAT_TEMPLATE_FILES = (".jinja", ".jinja2", ".j2")


class PromptSettings(Section):
    """How a row becomes text, and which rows are held out."""

    template: str = Field(
        "instruction",
        description="instruction: sections under ### headings; completion: instruction, input and "
        "output unchanged; chat: the base model's own chat template; the path of a Jinja chat "
        "template (*.jinja); or your own text with {instruction} and optionally {system}, {input} "
        "and {output} (a paragraph with {input} or {system} is left out of rows without one; the "
        "text after {output} ends the answer; control tokens in the text become their ids).",
    )
    system: str = Field(
        "", description="System text of rows that have none of their own; empty: none."
    )
    date: str = Field(
        DATE,
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description="Current date for chat templates that write one, as YYYY-MM-DD.",
    )
    fim_rate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the training rows with a function that become infilling, 0..1: "
        "code with a hole to fill in. The tokenizer of the base model must have infilling tokens.",
    )
    split: Literal["auto", "project", "folder", "file", "cluster", "time"] = Field(
        "auto",
        description="Unit that is never divided between train, validation and test. auto: the "
        "project; if there are fewer than three, or train would keep less than half of its share "
        "of the rows, the folder, then the file, then the cluster of near duplicates. time: train "
        "on what git had before split_date (or on all but the newest rows), test on what came "
        "after.",
    )
    split_date: str | None = Field(
        None,
        pattern=r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?$",
        description="With split: time, the date from which rows are used for the test, such as "
        "2026-01-31 (UTC). null: the newest rows, by test_share.",
    )
    spm_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the training rows of kind fill that show the suffix before the "
        "prefix (SPM), 0..1; the others, and held-out rows, show the prefix first (PSM).",
    )
    validation_share: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Share of projects (or other units of the split) held out for the validation "
        "during training, 0..1; at least one.",
    )
    test_share: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Share of projects (or other units of the split) held out for the evaluation, "
        "0..1; at least one.",
    )
    min_test_units: int = Field(
        0,
        ge=0,
        description="Minimum number of projects (or other units of the split) held out for the "
        "evaluation if test_share gives fewer; at most a fifth of all. Fewer than 6 can't show a "
        "difference.",
    )
    seed: int = Field(0, ge=0, description="Decides which projects are held out.")
    max_problems: int = Field(
        100,
        ge=0,
        description="Maximum number of executable functions, of all splits, that are held out as "
        "problems for the evaluation; those of the test split come first.",
    )
    max_train_rows: int | None = Field(
        None, ge=1, description="Maximum number of rows to train on; null: all."
    )
    max_held_out_rows: int | None = Field(
        None, ge=1, description="Maximum number of rows in each of validation and test; null: all."
    )

    @field_validator("date")
    @classmethod
    def _is_date(cls, day: str) -> str:
        try:
            datetime.date.fromisoformat(day)
        except ValueError as error:
            raise ValueError(f"{day!r}: {error}\nGive a date such as {DATE}.") from error
        return day

    @field_validator("system")
    @classmethod
    def _is_text(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("the system text contains a NUL byte\nRemove it from prompt.system.")
        return text

    @field_validator("template")
    @classmethod
    def _is_template(cls, template: str) -> str:
        if template.endswith(CHAT_TEMPLATE_FILES) and "\n" not in template:
            template = _read(template)
        if problem := problem_of(template):
            raise ValueError(
                f"{template!r} {problem}\n"
                "Write instruction, completion, chat, the path of a .jinja file, or a text such as "
                "'Task: {instruction}\\n\\n{input}\\n\\nAnswer: {output}'."
            )
        return template

    @model_validator(mode="after")
    def _date_has_a_use(self) -> "PromptSettings":
        if self.split_date is not None and self.split != "time":
            raise ValueError(
                f"split_date is {self.split_date}, and split is {self.split}\n"
                "Set prompt.split to time, or remove prompt.split_date."
            )
        return self

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "PromptSettings":
        held_out = self.validation_share + self.test_share
        if held_out >= 1:
            raise ValueError(
                f"validation_share + test_share is {held_out:g}, which leaves nothing to train on\n"
                "Lower prompt.validation_share or prompt.test_share."
            )
        return self


def _read(path: str) -> str:
    """The chat template in a file: its text, not its path, is the value of the setting, so it is in
    the key, too."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ValueError(
            f"the chat template {path} can't be read: {why}\n"
            "Give the path of a file, relative to the current folder."
        ) from error
    if not is_jinja(text):
        raise ValueError(
            f"{path} is not a chat template: it does not write messages\n"
            "Write a Jinja template that loops over messages, such as the chat_template.jinja of a "
            "model."
        )
    return text
