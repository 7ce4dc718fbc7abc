"""Messages in parts, as in Anthropic's and Gemini's API, with thoughts in messages of their own, as
in Harmony, or with replies, as in a tree: as messages that follow one another.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.ingestion.formats.columns import decoded
from tasks.ingestion.formats.conversation import TOOL

NODE, HIDDEN = {"message", "parent", "children"}, "hidden"
CONTENTS = ("content", "value", "text", "parts", "message")


def exported(value: Any) -> Any:
    """The nodes of an exported chat, {id: {message, parent, children}}, as a tree of replies of
    which the last child is the best; any other value as it is."""
    nodes = list(value.values()) if isinstance(value, Mapping) else []
    if not nodes or not all(isinstance(n, Mapping) and n.keys() >= NODE for n in nodes):
        return value
    replies = {name: _node(node["message"]) for name, node in value.items()}
    for name, node in value.items():
        below = [replies[child] for child in node["children"] if child in replies]
        for number, one in enumerate(below):
            one["rank"] = -number
        replies[name]["replies"] = below
    return next((replies[n] for n, node in value.items() if not node.get("parent")), value)


def _node(message: Any) -> dict[str, Any]:
    """The message of a node; one without text is hidden."""
    author, content = (
        found
        if isinstance(message, Mapping) and isinstance(found := message.get(name), Mapping)
        else {}
        for name in ("author", "content")
    )
    texts = [part for part in content.get("parts") or () if isinstance(part, str)]
    text = "".join(texts) or content.get("text") or ""
    role = author.get("role") or "system"
    return {"role": role, "content": text, HIDDEN: not text.strip()}


def thread(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a list; of the root of a tree, down along the replies of the best rank."""
    thread = list(given)
    while len(given) == 1 and isinstance(replies := thread[-1].get("replies"), list) and replies:
        thread.append(min(replies, key=lambda one: (one.get("rank") is None, one.get("rank"))))
    return [one for one in thread if not one.get(HIDDEN)]


def left_out_replies(value: Any) -> int:
    """Number of the replies in a tree that its `thread` does not take."""
    value = exported(decoded(value))
    waiting: list[Any] = [value] if isinstance(value, Mapping) else value
    if not isinstance(waiting, list) or len(waiting) != 1 or not isinstance(waiting[0], Mapping):
        return 0  # no tree
    waiting = list(waiting)
    taken = {id(one) for one in thread(waiting)}
    left_out = 0
    while waiting:
        one = waiting.pop()
        left_out += id(one) not in taken and not one.get(HIDDEN)
        waiting += one["replies"] if isinstance(one.get("replies"), list) else []
    return left_out


def spread(one: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A message as messages of text: calls and thoughts among its parts become fields of it, and
    each result of a tool is a message of its own, before it."""
    field = next((name for name in CONTENTS if isinstance(one.get(name), list)), "")
    texts: list[Any] = []
    calls: list[Mapping[str, Any]] = []
    thoughts: list[str] = []
    for part in one.get(field, ()):
        about = part if isinstance(part, Mapping) else {}
        kind = about.get("type")
        call = about.get("functionCall") or about.get("function_call")
        result = about.get("functionResponse") or about.get("function_response")
        if kind == "tool_use" or isinstance(call, Mapping):
            name, arguments = (about, "input") if call is None else (call, "args")
            function = {"name": name.get("name"), "arguments": name.get(arguments) or {}}
            known = {"id": about["id"]} if about.get("id") else {}
            calls.append({**known, "type": "function", "function": function})
        elif kind == "tool_result":
            content = about.get("content") or ""
            yield {"role": TOOL, "content": content, "tool_call_id": about.get("tool_use_id")}
        elif isinstance(result, Mapping):
            yield {"role": TOOL, "content": result.get("response"), "name": result.get("name")}
        elif kind == "thinking" and isinstance(about.get("thinking"), str):
            thoughts.append(about["thinking"])
        elif about.get("thought") is True and isinstance(about.get("text"), str):
            thoughts.append(about["text"])
        else:
            texts.append(part)
    more: dict[str, Any] = {"tool_calls": calls} if calls else {}
    more |= {"reasoning_content": "\n\n".join(thoughts)} if thoughts else {}
    if not field or texts or more:
        yield {**one, **({field: texts or None} if field else {}), **more}


def with_thoughts(messages: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages, with those of Harmony's channel `analysis` as thoughts of the next one."""
    found: list[Mapping[str, Any]] = []
    for one in messages:
        before = found[-1] if found else {}
        if before.get("channel") == "analysis" and one.get("role") == before.get("role"):
            thoughts = [str(content_of(m) or "") for m in (before, one)]
            is_thought = one.get("channel") == "analysis"
            joined = {"content": "\n\n".join(thoughts)} if is_thought else {}
            found[-1] = {**one, **(joined or {"reasoning_content": thoughts[0]})}
        else:
            found.append(one)
    return found


def content_of(one: Mapping[str, Any]) -> Any:
    """The content of a message; None if there is none."""
    return next((one[name] for name in CONTENTS if one.get(name) is not None), None)
