"""Messages in the common form, and a conversation as the texts of a row; shared by the formats of
chats.

The JSON of a conversation has a fixed order of keys. Tools and the arguments of calls keep the
order of the data, because a chat template prints them as they are.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.ingestion.formats.columns import MISSING, decoded
from tasks.ingestion.formats.rows.protocol import RowProblemError, RowTexts
from tasks.ingestion.rows import Unfit, text_problem

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
PASSED_ON = ("name", "reasoning_content", "tool_call_id")

Message = dict[str, Any]


def message(
    number: int,
    role: str,
    content: Any,
    tool_calls: Any = None,
    train: bool | None = None,
    more: Mapping[str, Any] | None = None,
) -> Message:
    """A message in the common form.

    Args:
        number: Of the message, from 1, for errors.
        role: One of the four roles.
        content: Text, or a list of text parts; of a tool, any JSON.
        tool_calls: Calls of an assistant, None if there are none.
        train: Whether an answer is trained; None: as the settings say.
        more: Further fields of the source's message; those of `PASSED_ON` are kept.

    Raises:
        RowProblemError: It is empty, or no text.
    """
    where = f"message {number} ({role})"
    text = _content(where, role, content)
    calls = _tool_calls(where, tool_calls)
    if not calls and (text is None or (role in (USER, ASSISTANT) and not text.strip())):
        if train is not False:
            raise RowProblemError(f"{where} is empty")
        text = text or ""
    fields = {"content": text, "role": role, "tool_calls": calls or None, "train": train}
    for name in PASSED_ON:
        if value := (more or {}).get(name):
            fields[name] = _checked(f"{name} of {where}", value)
    return {
        name: fields[name]
        for name in sorted(fields)
        if name == "content" or fields[name] is not None
    }


def _content(where: str, role: str, content: Any) -> str | None:
    if isinstance(content, list) and all(isinstance(part, str | Mapping) for part in content):
        content = "".join(_part(where, part) for part in content)
    elif role == TOOL and isinstance(content, Mapping | list | int | float):
        content = json.dumps(content, ensure_ascii=False)
    return None if content is None else _checked(where, content)


def _part(where: str, part: str | Mapping[str, Any]) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text")
    if kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
        raise RowProblemError(f"{where} has a part of type {kind!r}, only text is read")
    return str(part["text"])


def _checked(where: str, value: Any) -> str:
    if problem := text_problem(where, value, False):
        raise RowProblemError(problem)
    return str(value)


def _tool_calls(where: str, calls: Any) -> list[dict[str, Any]]:
    """Calls in OpenAI's form; bare {name, arguments} objects are put into it."""
    found = []
    for given in as_list(f"tool_calls of {where}", calls):
        call = given if "function" in given else {"type": "function", "function": given}
        function = call["function"]
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RowProblemError(f"{where} calls a function without a name")
        found.append(call)
    return found


def tool_list(name: str, tools: Any) -> list[dict[str, Any]]:
    """Tools in OpenAI's form: a list of objects, or its JSON; bare functions are put into it."""
    return [
        tool
        if "function" in tool or ("type" in tool and "name" not in tool)
        else {"type": "function", "function": tool}
        for tool in as_list(name, tools)
    ]


def as_list(name: str, value: Any) -> list[dict[str, Any]]:
    """A list of objects: as it is, from its JSON, or a single object; [] where there is none.

    Raises:
        RowProblemError: It is something else.
    """
    value = decoded(value)
    if value is None or value is MISSING or value == "":
        return []
    if isinstance(value, Unfit):
        raise RowProblemError(f"{name} {value.problem}")
    if isinstance(value, Mapping):
        columns = list(value.values())
        is_table = all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns)
        # lists of equal length, as `datasets` stores a list of objects
        value = (
            [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
            if is_table and len(columns) > 1
            else [value]
        )
    items = [decoded(item) for item in value] if isinstance(value, list) else [value]
    wrong = next((item for item in items if not isinstance(item, Mapping)), None)
    if wrong is not None or None in items:
        kind = type(wrong).__name__
        raise RowProblemError(f"{name} is of type {kind}, expected a list of objects or its JSON")
    return items


def conversation_texts(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> RowTexts:
    """The row of a conversation. Its instruction is all text that is not trained, its output all
    that is.

    Raises:
        RowProblemError: There is nothing to learn, or the text can't be stored.
    """
    masked: list[str] = []
    trained: list[str] = []
    for one in messages:
        is_trained = one["role"] == ASSISTANT and one.get("train", True)
        into = trained if is_trained else masked
        calls = one.get("tool_calls")
        texts = [one["content"], json.dumps(calls, ensure_ascii=False) if calls else ""]
        into += [text for text in texts if text]
    if not trained:
        raise RowProblemError("no message of an assistant to train on")
    conversation: dict[str, Any] = {"messages": list(messages)}
    if tools:
        conversation["tools"] = list(tools)
    return stored("conversation", masked, trained, conversation)


def stored(
    kind: str, masked: Sequence[str], trained: Sequence[str], conversation: Mapping[str, Any]
) -> RowTexts:
    """The row of a conversation and its plain views.

    Raises:
        RowProblemError: It holds what JSON or UTF-8 can't represent.
    """
    try:
        text = json.dumps(conversation, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except UnicodeEncodeError as error:
        raise RowProblemError(f"the {kind} is not valid UTF-8") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise RowProblemError(f"the {kind} holds a value that JSON can't represent") from error
    return RowTexts(kind, "\n\n".join(masked), "", "\n\n".join(trained), text)
