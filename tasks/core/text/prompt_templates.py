"""Rows as text: what the model is given, and what it should write.

`render` gives the prompt, up to the place where the model begins to write; `complete` gives the
rest. Training and evaluation share these two, so that a model is asked the way it was taught.

- "instruction": an introduction and sections, joined by one empty line; the input's section is left
  out where there is no input. The text ends with `END`.
- "completion": instruction and input as they stand, one after the other, continued by the output as
  it stands; for data that already is text and its continuation.
- "chat": one turn of the base model's own chat template. The texts hold marks (see
  `special_tokens`) where the tokenizer's template has its words, so that no tokenizer is needed to
  write them.
- any text with the field {instruction}, and {input} and {output} if wanted: a template of the user.
"""

import re

from tasks.core.text.special_tokens import mark

INTRODUCTION = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
INSTRUCTION = "### Instruction:"
INPUT = "### Input:"
OUTPUT = "### Output:"
END = "### End"
TEMPLATES = ("instruction", "completion", "chat")
FIELDS = ("instruction", "input", "output")
FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BETWEEN = "\n\n"


def render(template: str, instruction: str, input: str = "") -> str:
    """The prompt of a row.

    Args:
        template: One of `TEMPLATES`, or a user's text.
        instruction: What to do.
        input: What to do it with; "" where there is nothing.

    Raises:
        ValueError: No such template.
    """
    if template == "completion":
        return instruction + input
    if template == "chat":
        return mark("user") + _joined(instruction, input) + mark("assistant")
    if template not in TEMPLATES:
        return _render_own(template, instruction, input)
    sections = [INTRODUCTION, f"{INSTRUCTION}\n{instruction}"]
    if input:
        sections.append(f"{INPUT}\n{input}")
    return _BETWEEN.join([*sections, f"{OUTPUT}\n"])


def complete(template: str, output: str) -> str:
    """What the model should write after the prompt; EOS comes when it is tokenized.

    Raises:
        ValueError: No such template.
    """
    if template == "completion":
        return output
    if template == "chat":
        return output + mark("end")
    if template not in TEMPLATES:
        return output + _parts(template)[1]
    return output + _BETWEEN + END


def end_of(template: str) -> str:
    """The text behind every output that tells its end, "" where EOS alone does."""
    if template == "instruction":
        return END
    return "" if template in TEMPLATES else _parts(template)[1].strip()


def fill_in(text: str, start: int, end: int) -> tuple[str, str]:
    """A text with a hole from `start` to `end` as prompt and completion, in the order prefix,
    suffix, middle (Bavarian et al. 2022)."""
    given = mark("fim_prefix") + text[:start] + mark("fim_suffix") + text[end:]
    return given + mark("fim_middle"), text[start:end]


def problem_of(template: str) -> str:
    """Why a value is no template; "" if it is one."""
    if template in TEMPLATES:
        return ""
    fields = FIELD.findall(template)
    unknown = [name for name in fields if name not in FIELDS]
    known = ", ".join(f"{{{name}}}" for name in FIELDS)
    problems = {
        f"is neither {', '.join(TEMPLATES)} nor a text with {{instruction}}": not fields,
        f"has an unknown field {{{'}, {'.join(unknown)}}}; there are {known}": bool(unknown),
        "has no field {instruction}": "instruction" not in fields,
        "has a field behind {output}, which the model writes": "output" in fields[:-1],
        "holds a NUL byte": "\0" in template,
    }
    return next((problem for problem, is_there in problems.items() if is_there), "")


def _render_own(template: str, instruction: str, input: str) -> str:
    """The prompt by a user's template.

    A paragraph with {input} is left out where there is no input; without {input} anywhere the input
    follows the instruction, so that it is never lost.
    """
    before = _parts(template)[0]
    if "{input}" not in before:
        instruction, input = _joined(instruction, input), ""
    elif not input:
        whole = before.split(_BETWEEN)
        kept = [paragraph for paragraph in whole if "{input}" not in paragraph]
        before = _BETWEEN.join(kept) if "{instruction}" in "".join(kept) else before
    values = {"instruction": instruction, "input": input}
    return FIELD.sub(lambda field: values[field[1]], before)


def _parts(template: str) -> tuple[str, str]:
    """A user's template before and behind {output}."""
    if problem := problem_of(template):
        raise ValueError(f"no template {template!r}: it {problem}")
    before, _, behind = template.partition("{output}")
    return before, behind


def _joined(instruction: str, input: str) -> str:
    return f"{instruction}{_BETWEEN}{input}" if input else instruction
