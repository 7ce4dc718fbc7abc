"""Messages: a list of objects with `role` and `content`, as in OpenAI's API, with tools and calls;
also a list of turns that hold question and answer, of texts of user and assistant in turn, and a
chat that is rendered into one text.

`weight` (0 or 1, as in OpenAI's fine-tuning format) or `train` of an answer says whether it is
trained. Content in parts, as in Anthropic's and Gemini's API, may hold calls, results of tools and
thoughts. Of a tree of messages, the replies with the best rank are read.
"""

from collections.abc import Mapping
from typing import Any

from tasks.ingestion.formats.columns import Values, decoded
from tasks.ingestion.formats.conversation import (
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
from tasks.ingestion.formats.files.protocol import SPEAKERS
from tasks.ingestion.formats.message_parts import (
    CONTENTS,
    content_of,
    exported,
    left_out_replies,
    spread,
    thread,
    with_thoughts,
)
from tasks.ingestion.formats.rendered_chat import rendered_messages
from tasks.ingestion.formats.rows.protocol import (
    BoundFormat,
    RowFormat,
    RowProblemError,
    RowTexts,
)

ROLES = {
    "messages": (
        "messages",
        "conversation",
        "conversations",
        "dialog",
        "dialogue",
        "chat",
        "turns",
    ),
    "system": ("system", "system_prompt", "systeminstruction", "system_instruction"),
    "tools": ("tools", "functions"),
}
CALLS = ("function_call", "tool_call")
NAMES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "prompter": USER,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    **dict.fromkeys(("bot", "chatbot", "ai", "bard", "bing", "claude"), ASSISTANT),
    **dict.fromkeys(CALLS, ASSISTANT),
    "tool": TOOL,
    "function": TOOL,
    "ipython": TOOL,
    "observation": TOOL,
    "function_response": TOOL,
    "tool_response": TOOL,
}
# fields of turns that hold a question and its answer
QUESTIONS = ("user", "human", "question", "prompt", "instruction", "input")
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
ANSWERS = ("assistant", "gpt", "answer", "response", "output", "completion", "model", "bot")


def _fits(bound: BoundFormat, values: Values) -> bool:
    value = bound.value("messages", values)
    return looks_like_messages(value) or bool(
        _pairs(value) or _alternating(value) or rendered_messages(value)
    )


def looks_like_messages(value: Any) -> bool:
    """Whether a value is a list of objects with a role."""
    return speaker_of(value) not in ("", "from")


def _objects(name: str, value: Any) -> list[dict[str, Any]]:
    """A list of messages or turns, or of an object with `messages`; names of fields in upper case
    are read in lower case.

    Raises:
        RowProblemError: See `as_list`.
    """
    value = exported(decoded(value))
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        value = value["messages"]
    return [
        one if any(name in one for name in SPEAKERS) else {str(k).lower(): one[k] for k in one}
        for one in as_list(name, value)
    ]


def speaker_of(value: Any) -> str:
    """The field that says who speaks in a list of messages; "" if it is none."""
    try:
        return _speaker(_objects("", value))
    except RowProblemError:
        return ""


def _speaker(messages: list[dict[str, Any]]) -> str:
    """As `speaker_of`, of a list of objects."""
    first = messages[0] if messages else {}
    has_text = any(name in first for name in CONTENTS)
    found = (n for n in SPEAKERS if n in first and (has_text or n == "role"))
    # an author may be anybody, and so may a sender
    return next((n for n in found if n in ("role", "from") or is_known(first[n])), "")


def is_known(speaker: Any) -> bool:
    """Whether a speaker has a role in a conversation."""
    return isinstance(speaker, str) and speaker.lower() in NAMES


def _pairs(value: Any) -> list[tuple[str, str]]:
    """The fields with question and answer of each turn; [] for any other value."""
    try:
        turns = _objects("", value)
    except RowProblemError:
        return []
    found = []
    for turn in turns:
        fields = [next((n for n in names if n in turn), "") for names in (QUESTIONS, ANSWERS)]
        if not all(fields):
            return []
        found.append((fields[0], fields[1]))
    return found


def _alternating(value: Any) -> list[str]:
    """Texts of a user and an assistant in turn; [] if a value is not a list of texts or pairs."""
    value = decoded(value)
    if not isinstance(value, list):
        return []
    if all(isinstance(one, list) and len(one) == 2 for one in value):
        value = [text for pair in value for text in pair]  # [question, answer] pairs
    return value if len(value) > 1 and all(isinstance(one, str) for one in value) else []


def _texts(bound: BoundFormat, values: Values) -> RowTexts:
    messages = messages_of(bound.columns["messages"].spec, bound.value("messages", values))
    return with_columns(bound, values, messages)


def with_columns(bound: BoundFormat, values: Values, messages: list[Message]) -> RowTexts:
    """The row of a conversation whose system text and tools may be in separate columns.

    Raises:
        RowProblemError: It has nothing to learn.
    """
    system = bound.value("system", values)
    if isinstance(system, Mapping):
        system = content_of(system)
    elif not isinstance(system, list):
        system = bound.text("system", values, is_required=False)
    if isinstance(system, str):
        system = system.removeprefix("SYSTEM:").strip()  # of a data set of transcripts
    if system and messages[0]["role"] != SYSTEM:
        messages = [message(0, SYSTEM, system), *messages]
    tools = bound.columns.get("tools")
    return conversation_texts(messages, tool_list(tools.spec, tools.get(values)) if tools else ())


def messages_of(name: str, value: Any) -> list[Message]:
    """The messages of a column.

    Raises:
        RowProblemError: It is no list of messages, or one of them can't be read.
    """
    if texts := _alternating(value):
        return [message(n + 1, (USER, ASSISTANT)[n % 2], text) for n, text in enumerate(texts)]
    if said := rendered_messages(value):
        return said
    given = _objects(name, value)
    if not given:
        raise RowProblemError(f"{name} is empty")
    if _speaker(given) or not (fields := _pairs(given)):
        flat = (part for one in thread(given) for part in spread(one))
        return [_message(number, one) for number, one in enumerate(with_thoughts(flat), 1)]
    system = given[0].get("system")
    messages = [message(0, SYSTEM, system)] if system else []
    for turn, (question, answer) in zip(given, fields, strict=True):
        messages.append(message(len(messages) + 1, USER, turn[question]))
        messages.append(message(len(messages) + 1, ASSISTANT, turn[answer], train=_train(turn)))
    return messages


def _message(number: int, one: Mapping[str, Any]) -> Message:
    speaker = next((name for name in SPEAKERS if name in one), "role")
    name = one.get(speaker)
    role = NAMES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        has = "has the role" if speaker == "role" else "is from"
        raise RowProblemError(f"message {number} {has} {name!r}, expected one of {_KNOWN}")
    content = content_of(one)
    calls = one.get("tool_calls") or one.get("function_call")
    if name in CALLS and not isinstance(call := decoded(content), str):
        content, calls = None, call
    thoughts = next((one[field] for field in THOUGHTS if one.get(field)), None)
    more = {**one, "reasoning_content": thoughts}
    return message(number, role, content, calls, _train(one), more)


def _left_out(bound: BoundFormat, values: Values) -> int:
    return left_out_replies(bound.value("messages", values))


def _train(one: Mapping[str, Any]) -> bool | None:
    mask = next((one[name] for name in ("train", "weight") if one.get(name) is not None), None)
    return None if mask is None else bool(mask)


_KNOWN = ", ".join(NAMES)
MESSAGES = RowFormat(
    "messages", ROLES, _fits, _texts, lambda _mapping: ("messages",), left_out=_left_out
)
