"""Rows as text: what the model is given, and what it should write.

`render` gives the prompt, up to the place where the model begins to write; `complete` gives the
rest. Training and evaluation share these two, so that a model is asked the way it was taught.

- "instruction": an introduction and sections, joined by one empty line; the input's section is left
  out where there is no input. The text ends with `END`.
- "completion": instruction and input as they stand, one after the other, continued by the output as
  it stands; for data that already is text and its continuation.
"""

INTRODUCTION = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
INSTRUCTION = "### Instruction:"
INPUT = "### Input:"
OUTPUT = "### Output:"
END = "### End"
TEMPLATES = ("instruction", "completion")
_BETWEEN = "\n\n"


def render(template: str, instruction: str, input: str = "") -> str:
    """The prompt of a row.

    Args:
        template: One of `TEMPLATES`.
        instruction: What to do.
        input: What to do it with; "" where there is nothing.

    Raises:
        ValueError: No such template.
    """
    if template == "completion":
        return instruction + input
    _check(template)
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
    _check(template)
    return output + _BETWEEN + END


def _check(template: str) -> None:
    if template not in TEMPLATES:
        raise ValueError(f"no template {template!r}; there are {', '.join(TEMPLATES)}")
