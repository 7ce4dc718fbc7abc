"""Prompt templates: the fields of a row -> the model's prompt and the completion it should write.

`render` returns the prompt, up to where the model starts to write; `complete` returns the rest.
Training and evaluation share both, so that a model is prompted as it was trained.

- "instruction": an introduction and sections, joined by one empty line; without an input there is
  no input section. The text ends with `END`.
- "completion": instruction, input and output, joined unchanged; for data that is text and its
  continuation.
- "chat": one turn of the base model's chat template. The texts contain placeholders (see
  `special_tokens`) for what the tokenizer's template writes, so no tokenizer is needed here.
- any text with the field {instruction}, and optionally {input} and {output}: a user's template.
"""

import re

from tasks.core.text.special_tokens import placeholder

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
        instruction: The instruction.
        input: Its input; "" for none.

    Raises:
        ValueError: There is no such template.
    """
    if template == "completion":
        return instruction + input
    if template == "chat":
        return placeholder("user") + _joined(instruction, input) + placeholder("assistant")
    if template not in TEMPLATES:
        return _render_own(template, instruction, input)
    sections = [INTRODUCTION, f"{INSTRUCTION}\n{instruction}"]
    if input:
        sections.append(f"{INPUT}\n{input}")
    return _BETWEEN.join([*sections, f"{OUTPUT}\n"])


def complete(template: str, output: str) -> str:
    """What the model should write after the prompt; tokenization adds EOS.

    Raises:
        ValueError: There is no such template.
    """
    if template == "completion":
        return output
    if template == "chat":
        return output + placeholder("end")
    if template not in TEMPLATES:
        return output + _parts(template)[1]
    return output + _BETWEEN + END


def end_of(template: str) -> str:
    """The text after every output that marks its end; "" if only EOS does."""
    if template == "instruction":
        return END
    return "" if template in TEMPLATES else _parts(template)[1].strip()


def fill_in(text: str, start: int, end: int) -> tuple[str, str]:
    """A text with a hole from `start` to `end` as prompt and completion, in the order prefix,
    suffix, middle (Bavarian et al. 2022)."""
    return fill_prompt(text[:start], text[end:]), text[start:end]


def fill_prompt(prefix: str, suffix: str, suffix_first: bool = False) -> str:
    """The prompt for what stands between two texts.

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
    if template in TEMPLATES:
        return ""
    fields = FIELD.findall(template)
    unknown = [name for name in fields if name not in FIELDS]
    known = ", ".join(f"{{{name}}}" for name in FIELDS)
    problems = {
        f"is neither {', '.join(TEMPLATES)} nor a text with {{instruction}}": not fields,
        f"has an unknown field {{{'}, {'.join(unknown)}}}; there are {known}": bool(unknown),
        "has no field {instruction}": "instruction" not in fields,
        "has a field after {output}, which the model writes": "output" in fields[:-1],
        "holds a NUL byte": "\0" in template,
    }
    return next((problem for problem, is_there in problems.items() if is_there), "")


def _render_own(template: str, instruction: str, input: str) -> str:
    """The prompt of a user's template.

    Without an input, the paragraph with {input} is left out. In a template without {input}, the
    input follows the instruction, so that it is never lost.
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
    """A user's template before and after {output}."""
    if problem := problem_of(template):
        raise ValueError(f"no template {template!r}: it {problem}")
    before, _, after = template.partition("{output}")
    return before, after


def _joined(instruction: str, input: str) -> str:
    return f"{instruction}{_BETWEEN}{input}" if input else instruction
