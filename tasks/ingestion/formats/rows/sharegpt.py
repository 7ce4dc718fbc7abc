"""ShareGPT: a list of turns with `from` and `value`; system text and tools may have columns of
their own."""

from collections.abc import Mapping
from typing import Any

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.rows.conversation import (
    ASSISTANT,
    SYSTEM,
    TOOL,
    USER,
    Message,
    as_list,
    decoded,
    message,
)
from tasks.ingestion.formats.rows.messages import ROLES as MESSAGES_ROLES
from tasks.ingestion.formats.rows.messages import with_columns
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    RowFormat,
    RowProblemError,
    RowTexts,
)

ROLES = {**MESSAGES_ROLES, "messages": ("conversations", *MESSAGES_ROLES["messages"])}
CALL = "function_call"
NAMES = {
    "system": SYSTEM,
    "human": USER,
    "user": USER,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    CALL: ASSISTANT,
    "tool_call": ASSISTANT,
    "tool": TOOL,
    "observation": TOOL,
    "function_response": TOOL,
    "tool_response": TOOL,
}


def _fits(bound: BoundFormat, values: Values) -> bool:
    try:
        turns = as_list("", bound.value("messages", values))
    except RowProblemError:
        return False
    return bool(turns) and "from" in turns[0] and "value" in turns[0]


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    name = bound.columns["messages"].spec
    turns = as_list(name, bound.value("messages", values))
    if not turns:
        raise RowProblemError(f"{name} is empty")
    return with_columns(bound, values, [_turn(n, turn) for n, turn in enumerate(turns, 1)])


def _turn(number: int, turn: Mapping[str, Any]) -> Message:
    name, content = turn.get("from"), turn.get("value")
    role = NAMES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        known = ", ".join(NAMES)
        raise RowProblemError(f"message {number} is from {name!r}, wanted one of {known}")
    train = turn.get("train")
    if name in (CALL, "tool_call") and not isinstance(call := decoded(content), str):
        return message(number, role, None, call, train)
    return message(number, role, content, train=train)


SHAREGPT = RowFormat("sharegpt", ROLES, _fits, _texts, lambda _mapping: ("messages",))
