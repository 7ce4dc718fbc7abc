"""Preference pairs: a prompt with a chosen and a rejected answer.

Pairs are not trained on as pairs. `take: chosen` makes each chosen answer a row. Both answers may
be texts, lists of messages, or whole transcripts ("\\n\\nHuman: ...\\n\\nAssistant: ...").
"""

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rendered_chat import rendered_messages
from tasks.ingestion.formats.rows.conversation import conversation_texts
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


def _fits(bound: BoundFormat, values: Values) -> bool:
    return all(
        bound.has_text(role, values) or speaker_of(bound.value(role, values))
        for role in ("chosen", "rejected")
    )


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    chosen = bound.value("chosen", values)
    if isinstance(chosen, str) and not bound.value("prompt", values):
        if turns := rendered_messages(chosen):
            return conversation_texts(turns)
        bound.text("prompt", values)
    return answered(bound, values, "chosen")


PREFERENCE = RowFormat(
    "preference",
    ROLES,
    _fits,
    _texts,
    lambda _mapping: ("chosen",),
    choice="preference pairs, chosen and rejected",
)
