"""Alpaca with turns: instruction, input and output, after a system text and earlier turns.

Earlier answers are context: the row's output is the one that is trained. With tools, an output that
is a list of calls (or its JSON) becomes calls. A record without system text, history and tools is a
plain instruction.
"""

from collections.abc import Mapping
from typing import Any

from tasks.ingestion.formats.columns import Values, decoded
from tasks.ingestion.formats.conversation import (
    ASSISTANT,
    SYSTEM,
    USER,
    Message,
    conversation_texts,
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
    if not TURN_ROLES.keys() & bound.columns.keys():
        return False
    is_call = _has_calls(bound, values) and bound.has_text("instruction", values)
    return is_call or fits_instruction(bound, values)


def _has_calls(bound: BoundFormat, values: Values) -> bool:
    """Whether the output is a list of calls of tools."""
    if not bound.value("tools", values):  # most rows: their output need not be decoded
        return False
    calls = decoded(bound.value("output", values))
    return (isinstance(calls, list) and bool(calls)) and all(
        isinstance(c, Mapping) and {"name", "arguments"} <= c.keys() for c in calls
    )


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    calls = bound.value("output", values) if _has_calls(bound, values) else None
    if calls is None:
        plain = plain_texts(bound, values)
    else:
        instruction, given = bound.text("instruction", values), bound.text("input", values, False)
        plain = RowTexts("instruction", instruction, given, "")
    system = bound.text("system", values, is_required=False)
    history = _history(bound, values)
    tools = tool_list("tools", bound.value("tools", values))
    if not (system or history or tools):
        return plain
    messages = [message(0, SYSTEM, system)] if system else []
    question = "\n\n".join(text for text in (plain.instruction, plain.input) if text)
    messages += [*history, message(len(history) + 1, USER, question)]
    answer = message(len(history) + 2, ASSISTANT, plain.output or None, calls)
    return conversation_texts([*messages, answer], tools)


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
