"""Prompt templates: the fields of a row -> the model's prompt and the completion it should write.

`render` returns the prompt, up to where the model starts to write; `complete` returns the rest.
Training and evaluation share both, so that a model is prompted as it was trained.

- "instruction": an introduction and sections, joined by one empty line; without an input there is
  no input section. The text ends with `END`.
- "completion": instruction, input and output, joined unchanged; for data that is text and its
  continuation.
- "chat": the base model's chat template. The text is a placeholder with the messages (see
  `special_tokens`), which the tokenizer's template writes, so no tokenizer is needed here.
- a chat template in Jinja: the same with a user's template.
- any text with the field {instruction}, and optionally {system}, {input} and {output}: a user's
  template. What may be control tokens in it is written as placeholders.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasks.core.text.conversation import turns, with_system
from tasks.core.text.special_tokens import (
    chat_placeholder,
    literal,
    placeholder,
    with_control_tokens,
)

INTRODUCTION = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
INSTRUCTION = "### Instruction:"
INPUT = "### Input:"
OUTPUT = "### Output:"
TOOL = "### Tool result:"
END = "### End"
TEMPLATES = ("instruction", "completion", "chat")
FIELDS = ("system", "instruction", "input", "output")
FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
DATE = "2024-07-26"  # the default date of Llama 3's chat template
_BETWEEN = "\n\n"


@dataclass(frozen=True)
class PromptTemplate:
    """A template with what it writes besides the row.

    Attributes:
        text: One of `TEMPLATES`, a chat template in Jinja, or a user's text.
        system: System text of rows without one of their own; "" none.
        date: Today, for a chat template that writes it; ISO.
    """

    text: str
    system: str = ""
    date: str = DATE

    @cached_property
    def is_chat(self) -> bool:
        """Whether a chat template writes the rows."""
        return self.text == "chat" or is_jinja(self.text)

    def chat(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """A conversation with what its rendering needs."""
        own = {"template": self.text} if self.text != "chat" else {}
        return {**content, "date": self.date, **own}


Template = str | PromptTemplate


def is_jinja(template: str) -> bool:
    """Whether a template is a chat template in Jinja."""
    return "messages" in template and ("{%" in template or "{{" in template)


def render(template: Template, instruction: str, input: str = "") -> str:
    """The prompt of a row.

    Args:
        template: A template, or its text.
        instruction: The instruction.
        input: Its input; "" for none.

    Raises:
        ValueError: There is no such template.
    """
    own = _template(template)
    if own.is_chat:
        return chat_prompt(own, {"messages": request(own, instruction, input)})
    if own.text == "instruction":
        given = f"{INPUT}\n{input}{_BETWEEN}" if input else ""
        system = f"{own.system}{_BETWEEN}" if own.system else ""
        asked = f"{INTRODUCTION}{_BETWEEN}{INSTRUCTION}\n{instruction}{_BETWEEN}"
        return f"{system}{asked}{given}{OUTPUT}\n"
    if own.text == "completion":
        return _joined(own.system, instruction + input)
    return _render_own(own, instruction, input)


def complete(template: Template, output: str) -> str:
    """What the model should write after the prompt; tokenization adds EOS.

    Raises:
        ValueError: There is no such template.
    """
    own = _template(template)
    if own.is_chat:
        return output + chat_placeholder(own.chat({"end": True}))
    if own.text == "completion":
        return output
    if own.text != "instruction":
        return output + with_control_tokens(_parts(own.text)[1])
    return output + _BETWEEN + END


def end_of(template: Template) -> str:
    """The text after every output that marks its end, without control tokens; "" if only EOS or a
    control token does."""
    own = _template(template)
    if own.text == "instruction":
        return END
    return "" if own.is_chat or own.text == "completion" else literal(_parts(own.text)[1]).strip()


def stop_of(template: Template) -> str:
    """`end_of` with placeholders for control tokens."""
    own = _template(template)
    end = complete(own, "") if own.is_chat else with_control_tokens(end_of(own))
    return end.strip()


def request(template: PromptTemplate, instruction: str, input: str = "") -> list[dict[str, Any]]:
    """The messages of a row without its answer."""
    user = {"role": "user", "content": _joined(instruction, input)}
    return with_system([user], template.system)


def chat_prompt(template: PromptTemplate, content: Mapping[str, Any]) -> str:
    """The prompt of a conversation, which a chat template writes."""
    return chat_placeholder(template.chat(content))


def as_segments(template: PromptTemplate, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A conversation as segments: its turns by a template of text, one after another.

    What follows the last answer is left out. Tools and calls are written as JSON.
    """
    found: list[dict[str, Any]] = []
    for turn in turns(content["messages"]):
        if turn.answer is None:
            break
        system = [text for role, text in turn.given if role == "system"]
        if not found:
            system = system or [template.system]
            system += [tools_text(content["tools"])] if content.get("tools") else []
        own = PromptTemplate(template.text, _BETWEEN.join(filter(None, system)), template.date)
        given = [(role, text) for role, text in turn.given if role != "system"]
        if template.text == "instruction":
            first = [] if found else [INTRODUCTION]
            heads = {"tool": TOOL}
            parts = [f"{heads.get(role, INSTRUCTION)}\n{text}" for role, text in given]
            prompt = _sections([*first, *parts], own.system)
        else:
            prompt = render(own, _BETWEEN.join(text for _, text in given))
        found.append({"text": _BETWEEN * bool(found) + prompt, "train": False})
        found.append({"text": complete(own, turn.answer), "train": turn.train})
    return found


def tools_text(tools: list[Any]) -> str:
    """Tools as JSON, one per line."""
    lines = [json.dumps(tool, ensure_ascii=False, sort_keys=True) for tool in tools]
    return "\n".join(["Tools:", *lines])


def _template(template: Template) -> PromptTemplate:
    return template if isinstance(template, PromptTemplate) else PromptTemplate(template)


def _sections(sections: list[str], system: str) -> str:
    return _BETWEEN.join([*filter(None, [system]), *sections, f"{OUTPUT}\n"])


def fill_in(text: str, start: int, end: int, suffix_first: bool = False) -> tuple[str, str]:
    """A text with a hole from `start` to `end` as prompt and completion (Bavarian et al. 2022)."""
    return fill_prompt(text[:start], text[end:], suffix_first), text[start:end]


def fill_prompt(prefix: str, suffix: str, suffix_first: bool = False) -> str:
    """The prompt for the text between two texts.

    Args:
        prefix: Text before the hole.
        suffix: Text after it.
        suffix_first: Let the model continue the prefix itself (SPM, in the form of StarCoder and
            Code Llama) instead of writing the middle after both (PSM).
    """
    begin, between, end = map(placeholder, ("fim_prefix", "fim_suffix", "fim_middle"))
    if suffix_first:
        return begin + between + suffix + end + prefix
    return begin + prefix + between + suffix + end


def problem_of(template: str) -> str:
    """What is wrong with a template; "" if nothing is."""
    if template in TEMPLATES or is_jinja(template):
        return "contains a NUL byte" if "\0" in template else ""
    fields = FIELD.findall(template)
    unknown = [name for name in fields if name not in FIELDS]
    known = ", ".join(f"{{{name}}}" for name in FIELDS)
    problems = {
        f"is neither {', '.join(TEMPLATES)} nor a text with {{instruction}}": not fields,
        f"has an unknown field {{{'}, {'.join(unknown)}}}; there are {known}": bool(unknown),
        "has no field {instruction}": "instruction" not in fields,
        "has a field after {output}, which the model writes": "output" in fields[:-1],
        "contains a NUL byte": "\0" in template,
    }
    return next((problem for problem, is_there in problems.items() if is_there), "")


def _render_own(template: PromptTemplate, instruction: str, input: str) -> str:
    """The prompt of a user's template.

    Without an input, the paragraph with {input} is left out, as that with {system} is without a
    system text. In a template without {input}, the input follows the instruction, and without
    {system} the system text comes first, so that neither is ever lost.
    """
    before = with_control_tokens(_parts(template.text)[0])
    system = template.system
    if "{input}" not in before:
        instruction, input = _joined(instruction, input), ""
    if "{system}" not in before and system:
        before = f"{{system}}{_BETWEEN}{before}"
    for name, value in (("input", input), ("system", system)):
        if not value and f"{{{name}}}" in before:
            kept = [part for part in before.split(_BETWEEN) if f"{{{name}}}" not in part]
            before = _BETWEEN.join(kept) if "{instruction}" in "".join(kept) else before
    values = {"instruction": instruction, "input": input, "system": system}
    return FIELD.sub(lambda field: values[field[1]], before)


def _parts(template: str) -> tuple[str, str]:
    """A user's template before and after {output}."""
    if problem := problem_of(template):
        raise ValueError(f"no template {template!r}: it {problem}")
    before, _, after = template.partition("{output}")
    return before, after


def _joined(first: str, second: str) -> str:
    return f"{first}{_BETWEEN}{second}" if first and second else first + second
