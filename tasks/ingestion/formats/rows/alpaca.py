"""Alpaca with turns: instruction, input and output, after a system text and earlier turns.

Earlier answers are context: the row's output is the one that is trained. A record that has neither
system text nor history is a plain instruction.
"""

from typing import Any

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rows.conversation import (
    ASSISTANT,
    SYSTEM,
    USER,
    Message,
    conversation_texts,
    decoded,
    message,
    tool_list,
)
from tasks.ingestion.formats.rows.instruction import (
    ROLES as PLAIN_ROLES,
)
from tasks.ingestion.formats.rows.instruction import (
    fits_instruction,
    needs_of_instruction,
    plain_texts,
)
from tasks.ingestion.formats.rows.messages import messages_of
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    RowFormat,
    RowProblemError,
    RowTexts,
)

TURN_ROLES = {
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "tools": ("tools", "functions"),
}


def _fits(bound: BoundFormat, values: Values) -> bool:
    return bool(TURN_ROLES.keys() & bound.columns.keys()) and fits_instruction(bound, values)


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    plain = plain_texts(bound, values)
    system = bound.text("system", values, is_required=False)
    history = _history(bound, values)
    tools = tool_list("tools", bound.value("tools", values))
    if not (system or history or tools):
        return plain
    messages = [message(0, SYSTEM, system)] if system else []
    question = "\n\n".join(text for text in (plain.instruction, plain.input) if text)
    messages += [*history, message(len(history) + 1, USER, question)]
    return conversation_texts(
        [*messages, message(len(history) + 2, ASSISTANT, plain.output)], tools
    )


def _history(bound: BoundFormat, values: Values) -> list[Message]:
    turns = decoded(bound.value("history", values))
    if turns in (None, "", []):
        return []
    name = bound.columns["history"].spec
    if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
        earlier = messages_of(name, turns)
        return [m | {"train": False} if m["role"] == ASSISTANT else m for m in earlier]
    if not isinstance(turns, list) or not all(map(_is_pair, turns)):
        raise RowProblemError(f"{name} holds no list of [question, answer] pairs")
    messages = []
    for number, (question, answer) in enumerate(turns):
        messages.append(message(2 * number + 1, USER, question))
        messages.append(message(2 * number + 2, ASSISTANT, answer, train=False))
    return messages


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, list) and len(turn) == 2


ALPACA = RowFormat("alpaca", PLAIN_ROLES | TURN_ROLES, _fits, _texts, needs_of_instruction)
