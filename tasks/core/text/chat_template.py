"""Chat templates: a conversation -> its text, and where in it the trained messages are.

The template is a user's, or the one that comes with the base's tokenizer. It runs in the sandbox of
Jinja, with the functions that transformers gives to templates, except that today's date is a fixed
one. The names of control tokens in the data are broken by a character that no text holds, so that
they can be told from those that the template writes.

Where a template marks its answers by {% generation %}, these marks are used. For others, an answer
begins where the text ends that the model is prompted with, and ends after the control token that
ends its turn. Both are found by rendering parts of the conversation, or the whole with another
answer, because a template may write a turn in another way once others follow.
"""

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

from tasks.core.text.chat_environment import (
    CLOSE,
    OPEN,
    ChatTemplateError,
    ConversationError,
    Messages,
    Rendered,
    Renderer,
    compiled,
    marked_spans,
)
from tasks.core.text.special_tokens import ControlTokens, Pieces

# Unicode noncharacters: not in text that is exchanged, and kept by JSON and by str.strip
_BREAK, _PROBE = "\ufdd2", "\ufdd3"
_MARKS = (OPEN, CLOSE, _BREAK, _PROBE)


class ChatTemplate:
    """The chat templates of one tokenizer.

    Args:
        tokenizer: A tokenizer of transformers.
        control: Its control tokens.
    """

    def __init__(self, tokenizer: Any, control: ControlTokens) -> None:
        self._tokenizer = tokenizer
        self._control = control

    def prompt(self, chat: Mapping[str, Any]) -> Pieces:
        """A conversation up to where the model answers.

        Raises:
            ChatTemplateError: There is no template, or it lacks tools.
            ConversationError: The template refuses the conversation.
        """
        render = self._renderer(chat)
        return self._pieces(Rendered(render(self._data(chat), True)))

    def whole(self, chat: Mapping[str, Any], trained: Collection[int]) -> Pieces:
        """A whole conversation; the messages at these indexes are trained.

        Raises:
            ChatTemplateError: There is no template, or it lacks tools.
            ConversationError: The template refuses the conversation.
        """
        return self._pieces(self._whole(chat, trained))

    def end(self, chat: Mapping[str, Any]) -> str:
        """What the template writes after an answer."""
        turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": _PROBE}]
        text = self._renderer(chat)(turns)
        if text.count(_PROBE) != 1:
            raise ChatTemplateError(
                f"the chat template writes an answer {text.count(_PROBE)} times, not once",
                "Set prompt.template to instruction, or to a chat template of your own.",
            )
        return text.partition(_PROBE)[2].replace(CLOSE, "").replace(OPEN, "")

    def _data(self, chat: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [_message(message, self._broken) for message in chat["messages"]]

    def _broken(self, value: Any) -> Any:
        """A value with the names of control tokens broken."""
        if isinstance(value, str):
            if any(mark in value for mark in _MARKS):
                raise ConversationError("a text holds a Unicode noncharacter, U+FDD0 to U+FDD3")
            return self._control.pattern.sub(lambda f: f[0][0] + _BREAK + f[0][1:], value)
        if isinstance(value, Mapping):
            return {key: self._broken(item) for key, item in value.items()}
        return [self._broken(item) for item in value] if isinstance(value, list) else value

    def _renderer(self, chat: Mapping[str, Any]) -> "Renderer":
        tools = self._broken(chat.get("tools") or None)
        source = chat.get("template")
        if source is None:
            if not self._tokenizer.chat_template:
                raise ChatTemplateError(
                    "prompt.template is chat, and the base model's tokenizer has no chat template",
                    "Set prompt.template to instruction, or use a base model made for chat.",
                )
            source = self._tokenizer.get_chat_template(None, tools)
        names = self._tokenizer.special_tokens_map
        return Renderer(compiled(source, chat["date"]), tools, names)

    def _whole(self, chat: Mapping[str, Any], trained: Collection[int]) -> Rendered:
        render, messages = self._renderer(chat), self._data(chat)
        try:
            text = render(messages)
        except ConversationError:
            # a template without a system role: the text goes to the user's first message
            messages, moved = _without_system(messages)
            if not moved:
                raise
            text = render(messages)
            trained = [index - 1 for index in trained]
        self._check_tools(render, messages, text)
        if OPEN in text:
            answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
            marked = marked_spans(text)
            if len(marked.spans) == len(answers) and set(trained) <= set(answers):
                spans = zip(answers, marked.spans, strict=True)
                return Rendered(marked.text, tuple(s for i, s in spans if i in trained))
            text = marked.text
        found = (self._span(render, messages, index, text) for index in sorted(trained))
        return Rendered(text, tuple(found))

    def _check_tools(self, render: "Renderer", messages: list[dict[str, Any]], text: str) -> None:
        """Refuse a template that leaves out tools, calls or results."""
        ignored = ""
        if render.tools and Renderer(render.template, None, render.names)(messages) == text:
            ignored = "the list of tools"
        for index, message in enumerate(messages):
            if message.get("tool_calls"):
                calls = [{"function": {"name": _PROBE, "arguments": {}}, "type": "function"}]
                changed = {**message, "tool_calls": calls}
            elif message["role"] == "tool" and message["content"]:
                changed = {**message, "content": _PROBE}
            else:
                continue
            if _PROBE not in (render.attempt(_with(messages, index, changed)) or _PROBE):
                ignored = f"a {'call' if 'tool_calls' in message else 'result'} of a tool"
        if ignored:
            raise ChatTemplateError(
                f"rows have tools, and the chat template leaves out {ignored}",
                "Set prompt.template to instruction, which writes tools as JSON, or to the path of "
                "a Jinja chat template that writes tools.",
            )

    def _span(
        self, render: "Renderer", messages: list[dict[str, Any]], index: int, text: str
    ) -> tuple[int, int]:
        """Start and end of a message in the text."""
        message = messages[index]
        is_answer = message["role"] == "assistant"
        other = render.attempt(_with(messages, index, {**message, "content": _PROBE})) or ""
        before, probe, after = other.partition(_PROBE)
        is_found = bool(probe) and _PROBE not in after
        content_end = len(text) - len(after) if is_found and text.endswith(after) else 0
        prompt = render.attempt(messages[:index], True) if is_answer else None
        start = None
        if prompt and text.startswith(prompt):
            start = len(prompt)
        elif is_found and text.startswith(before):
            start = len(before)
        upto = render.attempt(messages[: index + 1]) if is_answer else None
        end = None
        if start is not None and upto and text.startswith(upto) and len(upto) >= start:
            end = self._last_control(text, max(start, content_end), len(upto))
        elif start is not None and content_end:
            end = max(start, content_end)
            following = self._control.pattern.search(text, end) if is_answer else None
            end = following.end() if following else end
        if start is None or end is None:
            raise ConversationError(
                f"message {index + 1} ({message['role']}) can't be found in the template's text"
            )
        return start, end

    def _last_control(self, text: str, start: int, end: int) -> int:
        """End of the last control token between two places; `end` without one."""
        return max((f.end() for f in self._control.pattern.finditer(text, start, end)), default=end)

    def _pieces(self, rendered: Rendered) -> Pieces:
        """Control tokens and texts, cut where training begins and ends."""
        text = marked_spans(rendered.text).text if OPEN in rendered.text else rendered.text
        cuts = [0, *(at for span in rendered.spans for at in span), len(text)]
        return [
            (part.replace(_BREAK, "") if isinstance(part, str) else part, number % 2 == 1)
            for number, (start, end) in enumerate(pairwise(cuts))
            for part, _, _ in self._control.split(text[start:end])
        ]


def _message(message: Mapping[str, Any], broken: Callable[[Any], Any]) -> dict[str, Any]:
    """A message as templates read it: without `train`, arguments of calls as objects."""
    made = {key: broken(value) for key, value in message.items() if key != "train"}
    made["content"] = made.get("content") or ""
    if thoughts := made.get("reasoning_content"):
        made["thinking"] = thoughts  # the name in gpt-oss
    calls = made.pop("tool_calls", None)
    if calls:
        made["tool_calls"] = [_call(call) for call in calls]
    return made


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        with suppress(ValueError):  # else the template writes the text
            function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}


def _with(messages: Messages, index: int, message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*messages[:index], message, *messages[index + 1 :]]


def _without_system(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """The messages with the system text before the user's first one, and whether it was moved."""
    roles = [message["role"] for message in messages[:2]]
    if roles != ["system", "user"]:
        return messages, False
    text = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": text}, *messages[2:]], True
