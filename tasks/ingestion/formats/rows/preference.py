"""Preference pairs: a prompt with a chosen and a rejected answer.

Pairs are not trained on as pairs. `take: chosen` makes each chosen answer a row. Both answers may
be texts, lists of messages, whole transcripts ("\\n\\nHuman: ...\\n\\nAssistant: ...") or the ends
of transcripts that the prompt begins.
"""

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rendered_chat import rendered_messages
from tasks.ingestion.formats.rows.messages import speaker_of, with_columns
from tasks.ingestion.formats.rows.prompt_completion import answered
from tasks.ingestion.formats.rows.protocol import BoundFormat, RowFormat, RowTexts

ROLES = {
    "prompt": ("prompt", "question", "instruction", "input", "messages", "conversations"),
    "chosen": (
        *("chosen", "chosen_response", "accepted", "preferred", "preferred_output", "better"),
        *("better_response", "response_j"),
    ),
    "rejected": (
        *("rejected", "rejected_response", "dispreferred", "non_preferred_output", "worse"),
        *("worse_response", "response_k"),
    ),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
}


def _fits(bound: BoundFormat, values: Values) -> bool:
    return all(
        bound.has_text(role, values) or speaker_of(bound.value(role, values))
        for role in ("chosen", "rejected")
    )


def chosen_texts(bound: BoundFormat, values: Values) -> RowTexts:
    """The row of a prompt and the answer that was chosen.

    Raises:
        RowProblemError: One of them can't be the text of a row.
    """
    prompt, chosen = bound.value("prompt", values) or "", bound.value("chosen", values)
    if isinstance(chosen, str):
        whole = f"{prompt}{chosen}" if isinstance(prompt, str) else ""
        if turns := rendered_messages(chosen) or rendered_messages(whole):
            return with_columns(bound, values, turns)
        if not prompt:
            bound.text("prompt", values)
    return answered(bound, values, "chosen")


PREFERENCE = RowFormat(
    "preference",
    ROLES,
    _fits,
    chosen_texts,
    lambda _mapping: ("chosen",),
    choice="preference pairs, chosen and rejected",
)
