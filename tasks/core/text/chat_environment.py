"""The environment of chat templates: the sandbox of Jinja, with the functions of transformers.

Today's date is a fixed one, so that the same conversations give the same text on another day.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tasks.core.errors import NotSupportedError

# around what {% generation %} marks: Unicode noncharacters, which no text holds that is exchanged
OPEN, CLOSE = "\ufdd0", "\ufdd1"
Messages = Sequence[Mapping[str, Any]]


class ChatTemplateError(NotSupportedError):
    """The chat template can't write the conversations."""


class ConversationError(ValueError):
    """The chat template refuses one conversation."""


@dataclass(frozen=True)
class Rendered:
    """The text of a conversation; names of control tokens in the data are still broken.

    Attributes:
        text: The text.
        spans: Start and end of each trained message.
    """

    text: str
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Renderer:
    """A template with the tools of a conversation and the names of the tokenizer's tokens."""

    template: jinja2.Template
    tools: list[Any] | None
    names: Mapping[str, Any]

    def __call__(self, messages: Messages, generation: bool = False) -> str:
        """The text of messages, up to where the model answers if `generation`.

        Raises:
            ConversationError: The template refuses the messages.
        """
        try:
            names = {"messages": messages, "tools": self.tools, "documents": None}
            text = self.template.render(names, add_generation_prompt=generation, **self.names)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            raise ConversationError(str(error) or type(error).__name__) from error
        return str(text)

    def attempt(self, messages: Messages, generation: bool = False) -> str | None:
        """The text without marks; None where the template refuses the messages."""
        try:
            return marked_spans(self(messages, generation)).text
        except ConversationError:
            return None


class _Generation(Extension):
    """{% generation %}: marks what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Any) -> Any:
        """A block whose text is put between marks."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_mark")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


def marked_spans(text: str) -> Rendered:
    """A text without the marks of {% generation %}, and the spans between them."""
    parts = text.replace(CLOSE, OPEN).split(OPEN)
    ends, at = [], 0
    for part in parts[:-1]:
        at += len(part)
        ends.append(at)
    return Rendered("".join(parts), tuple(zip(ends[::2], ends[1::2], strict=False)))


@lru_cache(maxsize=16)
def compiled(source: str, day: str) -> jinja2.Template:
    """A template that finds `day` (ISO) to be today."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment.filters["tojson"] = to_json  # Jinja's own escapes HTML and sorts
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = date.fromisoformat(day).strftime
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ChatTemplateError(
            f"the chat template is not valid Jinja: line {error.lineno}: {error.message}",
            "Correct the chat template, or set prompt.template to instruction.",
        ) from error
