"""Conversations as JSON: which parts are trained, and their text without a chat template.

A conversation is {"messages": [...], "tools"?: [...]} or {"segments": [{"text", "train"}]}. A
message or segment with `train` true or false decides for itself; without, answers are trained.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

LAST, ROW = "last", "row"
Messages = Sequence[Mapping[str, Any]]


@dataclass
class Turn:
    """What is given, and the answer to it.

    Attributes:
        given: (role, text) of each message before the answer.
        answer: The answer; None at the end of a conversation that lacks one.
        train: Of the answer's message.
    """

    given: list[tuple[str, str]] = field(default_factory=list)
    answer: str | None = None
    train: bool | None = None


def parse(text: str) -> dict[str, Any]:
    """A conversation from its JSON; {} for ""."""
    return dict(json.loads(text)) if text else {}


def trained_messages(messages: Messages, loss_on: str) -> list[int]:
    """Indexes of the messages that are trained.

    Args:
        messages: Of a conversation.
        loss_on: The setting; "row" trains only what the row marks, of any role.
    """
    if loss_on == ROW:
        return [i for i, message in enumerate(messages) if message.get("train")]
    answers = [
        i
        for i, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("train") is not False
    ]
    return answers[-1:] if loss_on == LAST else answers


def trained_segments(segments: Messages, loss_on: str) -> list[int]:
    """Indexes of the segments that are trained; `train` null marks an answer of a template."""
    if loss_on == "everything":
        return list(range(len(segments)))
    is_trained = [
        segment.get("train") is True or ("train" in segment and segment["train"] is None)
        if loss_on != ROW
        else segment.get("train") is True
        for segment in segments
    ]
    found = [i for i, trained in enumerate(is_trained) if trained and segments[i]["text"]]
    return found[-1:] if loss_on == LAST else found


def is_closed(conversation: Mapping[str, Any], loss_on: str) -> bool:
    """Whether a conversation ends in something that is trained, so that its end is, too."""
    if loss_on == "everything":
        return "segments" in conversation  # a chat ends as its template writes it
    if "segments" in conversation:
        parts = conversation["segments"]
        trained = trained_segments(parts, loss_on)
        last = max((i for i, part in enumerate(parts) if part["text"]), default=-1)
        return bool(trained) and trained[-1] == last
    messages = conversation["messages"]
    trained = trained_messages(messages, loss_on)
    is_last = bool(trained) and trained[-1] == len(messages) - 1
    return is_last and messages[-1]["role"] == "assistant"


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, with its tool calls as JSON, one per line."""
    calls = [
        json.dumps(_call(call), ensure_ascii=False, sort_keys=True)
        for call in message.get("tool_calls") or ()
    ]
    return "\n".join([*filter(None, [message.get("content") or ""]), *calls])


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments") or {}
    with suppress(ValueError):  # no JSON: as it is
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"name": function.get("name"), "arguments": arguments}


def turns(messages: Messages) -> list[Turn]:
    """The turns of a conversation, in order; the last may lack an answer."""
    found = [Turn()]
    for message in messages:
        if message["role"] != "assistant":
            found[-1].given.append((message["role"], text_of(message)))
            continue
        found[-1].answer, found[-1].train = text_of(message), message.get("train")
        found.append(Turn())
    return found if found[-1].given else found[:-1]


def with_system(messages: Messages, system: str) -> list[dict[str, Any]]:
    """The messages, with a system text in front if they have none."""
    made = [dict(message) for message in messages]
    if system and not any(message["role"] == "system" for message in made):
        return [{"role": "system", "content": system}, *made]
    return made
