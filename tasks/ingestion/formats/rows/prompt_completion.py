"""Prompt and completion: two texts, or two lists of messages.

Texts become instruction and output; a completion after an empty prompt is plain text. Of lists, the
answers in the prompt are context: those of the completion are trained.
"""

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.conversation import ASSISTANT, USER, Message, message
from tasks.ingestion.formats.rows.messages import messages_of, speaker_of, with_columns
from tasks.ingestion.formats.rows.protocol import BoundFormat, RowFormat, RowTexts

ROLES = {
    "prompt": ("prompt",),
    "completion": ("completion", "response", "answer", "output"),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
}


def _fits(bound: BoundFormat, values: Values) -> bool:
    return all(
        bound.has_text(role, values) or speaker_of(bound.value(role, values))
        for role in ("prompt", "completion")
    )


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    return answered(bound, values, "completion")


def answered(bound: BoundFormat, values: Values, role: str) -> RowTexts:
    """The row of a prompt and the answer in the column of a role.

    Raises:
        RowProblemError: One of them can't be the text of a row.
    """
    prompt, answer = bound.value("prompt", values), bound.value(role, values)
    is_chat = speaker_of(prompt) or speaker_of(answer)
    if is_chat or any(bound.value(name, values) for name in ("system", "tools")):
        return with_columns(bound, values, _messages(bound, values, role))
    instruction = bound.text("prompt", values, is_required=False)
    output = bound.text(role, values)
    return RowTexts("instruction" if instruction.strip() else "text", instruction, "", output)


def _messages(bound: BoundFormat, values: Values, role: str) -> list[Message]:
    """Prompt and answer as one conversation; an answer that repeats the prompt stands alone."""
    answer = bound.value(role, values)
    if speaker_of(answer):
        answers = messages_of(bound.columns[role].spec, answer)
        if answers[0]["role"] != ASSISTANT:
            return answers
    else:
        answers = [message(2, ASSISTANT, bound.text(role, values))]
    prompt = bound.value("prompt", values)
    if not speaker_of(prompt):
        return [message(1, USER, bound.text("prompt", values)), *answers]
    given = messages_of(bound.columns["prompt"].spec, prompt)
    return [*(m | {"train": False} if m["role"] == ASSISTANT else m for m in given), *answers]


PROMPT_COMPLETION = RowFormat(
    "prompt_completion", ROLES, _fits, _texts, lambda _mapping: ("prompt", "completion")
)
