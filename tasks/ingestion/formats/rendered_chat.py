"""Chats that a template has rendered into one text, such as ChatML, and transcripts: as messages.

A text is one only if it begins with a turn, after at most a short preamble, and has a question and
an answer. So code and prose that merely mention the markup stay text.
"""

import re
from typing import NamedTuple

from tasks.ingestion.formats.conversation import (
    ASSISTANT,
    SYSTEM,
    TOOL,
    USER,
    Message,
    message,
)

ROLES = {
    **dict.fromkeys(("system", "developer", "<<sys>>", "[system_prompt]"), SYSTEM),
    **dict.fromkeys(("user", "human", "prompter", "instruction", "input", "question"), USER),
    **dict.fromkeys(("context", "[inst]", "<</sys>>", "[/system_prompt]"), USER),
    **dict.fromkeys(("assistant", "model", "ai", "bot", "gpt", "[/inst]"), ASSISTANT),
    **dict.fromkeys(("response", "output", "answer", "solution"), ASSISTANT),
    **dict.fromkeys(("tool", "function", "ipython", "function response", "observation"), TOOL),
}
PARTS_OF_QUESTIONS = frozenset({"input", "context"})
MAX_PREAMBLE = 600  # characters of "Below is an instruction ..." or "A chat between ..."
SPEAKER = r"(system|developer|user|human|gpt|assistant|model|tool|function|ipython|observation)"
NAMED = r"(System|Human|User|Assistant|AI|Bot|SYSTEM|HUMAN|USER|ASSISTANT|FUNCTION RESPONSE)"
HEADING = (
    r"(System|Instruction|Input|Question|Context|Human|User|Response|Output|Answer|Solution|"
    r"Assistant|GPT|Bot)"
)


class Markup(NamedTuple):
    """How a template writes a chat.

    Attributes:
        turn: Begins a turn; its group is the speaker.
        ends: What surrounds the texts of turns, and is no part of them.
        has_preamble: Whether other text may precede the first turn; it becomes the system text.
    """

    name: str
    turn: re.Pattern[str]
    ends: re.Pattern[str]
    has_preamble: bool = False


_EOS = r"<\|endoftext\|>|</?s>"
MARKUPS = (
    Markup(
        "ChatML",
        re.compile(rf"<\|im_start\|>{SPEAKER}[^\n]*\n"),
        re.compile(rf"<\|im_end\|>|{_EOS}"),
    ),
    Markup(
        "Llama 3",
        re.compile(rf"<\|start_header_id\|>{SPEAKER}<\|end_header_id\|>"),
        re.compile(r"<\|(?:eot_id|eom_id|begin_of_text|end_of_text|finetune_right_pad_id)\|>"),
    ),
    Markup(
        "Llama 2 or Mistral",
        re.compile(r"(\[/?INST\]|<</?SYS>>|\[/?SYSTEM_PROMPT\])"),
        re.compile(r"</?s>"),
    ),
    Markup(
        "Gemma",
        re.compile(rf"<start_of_turn>{SPEAKER}\n"),
        re.compile(r"<end_of_turn>|<bos>|<eos>"),
    ),
    Markup("Zephyr or Phi", re.compile(rf"<\|{SPEAKER}\|>"), re.compile(rf"<\|end\|>|{_EOS}")),
    Markup(
        "headings",
        re.compile(rf"(?:\A|(?<=\n)|(?<=[^#\s])|(?<= ))###+ ?{HEADING}:"),
        re.compile(rf"(?:### ?End\s*)?(?:{_EOS})|### ?End\s*\Z"),
        has_preamble=True,
    ),
    # empty lines between the turns, each turn on a line of its own, or all of them on one line
    Markup(
        "transcript", re.compile(rf"(?:\A\s*|\n\n+){NAMED}:"), re.compile(_EOS), has_preamble=True
    ),
    Markup("transcript", re.compile(rf"(?m)^{NAMED}:"), re.compile(_EOS), has_preamble=True),
    Markup(
        "transcript",
        re.compile(r"(?:\A|(?<=\s)|(?<=</s>))(SYSTEM|USER|ASSISTANT):"),
        re.compile(_EOS),
        has_preamble=True,
    ),
)


def markup_of(text: str) -> str:
    """The name of the markup that a text is a chat in; "" if it is none."""
    return _turns(text)[0]


def rendered_messages(value: object) -> list[Message]:
    """The messages of a rendered chat; [] if a value is none."""
    turns = _turns(value)[1] if isinstance(value, str) else []
    return [message(number, role, text) for number, (role, text) in enumerate(turns, 1)]


def _turns(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Name of the markup and (role, text) of the turns; ("", []) for other text."""
    for markup in MARKUPS:
        begins = list(markup.turn.finditer(text))
        if not begins or begins[0].start() > MAX_PREAMBLE:
            continue
        preamble = markup.ends.sub("", text[: begins[0].start()]).strip()
        if preamble and not markup.has_preamble:
            continue
        turns = [(SYSTEM, preamble)] if preamble else []
        for begin, end in zip(begins, [*(b.start() for b in begins[1:]), len(text)], strict=True):
            _add(turns, begin, markup.ends.sub("", text[begin.end() : end]).strip())
        turns = [(role, said.strip()) for role, said in turns if said.strip()]
        if {USER, ASSISTANT} <= {role for role, _ in turns}:
            return markup.name, turns
    return "", []


def _add(turns: list[tuple[str, str]], begin: re.Match[str], said: str) -> None:
    """Add a turn. Parts of one question become one; a heading in an answer is part of it."""
    speaker = begin[1].lower()
    role, (last, before) = ROLES[speaker], turns[-1] if turns else ("", "")
    if last == ASSISTANT and (role == ASSISTANT or speaker in PARTS_OF_QUESTIONS) and before:
        turns[-1] = (last, f"{before}\n\n{begin[0].strip()}\n{said}")
    elif role == last and role != TOOL:
        turns[-1] = (role, f"{before}\n\n{said}")
    else:
        turns.append((role, said))
