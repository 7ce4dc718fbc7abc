"""Messages: a list of objects with `role` and `content`, as in OpenAI's API, with tools and calls.

`weight` (0 or 1, as in OpenAI's fine-tuning format) or `train` of an answer says whether it is
trained.
"""

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
    conversation_texts,
    message,
    tool_list,
)
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    RowFormat,
    RowProblemError,
    RowTexts,
)

ROLES = {
    "messages": ("messages", "conversation", "conversations", "dialog", "dialogue", "chat"),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
}
NAMES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
    "tool": TOOL,
    "function": TOOL,
    "ipython": TOOL,
}


def _fits(bound: BoundFormat, values: Values) -> bool:
    return looks_like_messages(bound.value("messages", values))


def looks_like_messages(value: Any) -> bool:
    """Whether a value is a list of objects with a role."""
    try:
        return "role" in next(iter(as_list("", value)), {})
    except RowProblemError:
        return False


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    messages = messages_of(bound.columns["messages"].spec, bound.value("messages", values))
    return with_columns(bound, values, messages)


def with_columns(bound: BoundFormat, values: Values, messages: list[Message]) -> RowTexts:
    """The row of a conversation whose system text and tools may be in columns of their own.

    Raises:
        RowProblemError: It has nothing to learn.
    """
    system = bound.text("system", values, is_required=False)
    if system and messages[0]["role"] != SYSTEM:
        messages = [message(0, SYSTEM, system), *messages]
    tools = bound.columns.get("tools")
    return conversation_texts(messages, tool_list(tools.spec, tools.get(values)) if tools else ())


def messages_of(name: str, value: Any) -> list[Message]:
    """The messages of a column.

    Raises:
        RowProblemError: It is no list of messages, or one of them can't be read.
    """
    given = as_list(name, value)
    if not given:
        raise RowProblemError(f"{name} is empty")
    return [_message(number, one) for number, one in enumerate(given, 1)]


def _message(number: int, one: Mapping[str, Any]) -> Message:
    name = one.get("role")
    role = NAMES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise RowProblemError(f"message {number} has the role {name!r}, wanted one of {_KNOWN}")
    calls = one.get("tool_calls") or one.get("function_call")
    return message(number, role, one.get("content"), calls, _train(one), one)


def _train(one: Mapping[str, Any]) -> bool | None:
    mask = next((one[name] for name in ("train", "weight") if one.get(name) is not None), None)
    return None if mask is None else bool(mask)


_KNOWN = ", ".join(NAMES)
MESSAGES = RowFormat("messages", ROLES, _fits, _texts, lambda _mapping: ("messages",))
