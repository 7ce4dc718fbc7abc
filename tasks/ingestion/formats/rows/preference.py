"""Preference pairs: a prompt with a chosen and a rejected answer.

Pairs are not trained on as pairs. `take: chosen` makes each chosen answer a row. Both answers may
be texts, lists of messages, or whole transcripts ("\\n\\nHuman: ...\\n\\nAssistant: ...").
"""

import re

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rows.conversation import (
    ASSISTANT,
    USER,
    Message,
    conversation_texts,
    message,
)
from tasks.ingestion.formats.rows.messages import speaker_of
from tasks.ingestion.formats.rows.prompt_completion import answered
from tasks.ingestion.formats.rows.protocol import BoundFormat, RowFormat, RowTexts

ROLES = {
    "prompt": ("prompt", "question", "instruction", "input", "messages", "conversations"),
    "chosen": ("chosen", "chosen_response"),
    "rejected": ("rejected", "rejected_response"),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
}
SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")


def _fits(bound: BoundFormat, values: Values) -> bool:
    return all(
        bound.has_text(role, values) or speaker_of(bound.value(role, values))
        for role in ("chosen", "rejected")
    )


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    chosen = bound.value("chosen", values)
    if isinstance(chosen, str) and not bound.value("prompt", values):
        turns = _transcript(chosen)
        if turns:
            return conversation_texts(turns)
        bound.text("prompt", values)
    return answered(bound, values, "chosen")


def _transcript(text: str) -> list[Message]:
    """The messages of a transcript; [] if a text is none."""
    before, *turns = SPEAKER.split(text)
    if before.strip() or not turns:
        return []
    said = zip(turns[::2], turns[1::2], strict=True)
    return [
        message(number, USER if name == "Human" else ASSISTANT, text.strip())
        for number, (name, text) in enumerate(said, 1)
    ]


PREFERENCE = RowFormat(
    "preference",
    ROLES,
    _fits,
    _texts,
    lambda _mapping: ("chosen",),
    choice="preference pairs, chosen and rejected",
)
