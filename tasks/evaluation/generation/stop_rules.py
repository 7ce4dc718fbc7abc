"""Stop rules: end an answer before its end marker, where the rest would be cut anyway.

A module of its own with few imports, because its code is part of the key of a cached completion:
how answers are cut and graded may change without generating any text again.
"""

import ast
import re
import warnings
from collections.abc import Sequence

from tasks.evaluation.generation.scope_end import BODY, end_of

FUNCTION, LINE, OTHER_LANGUAGE = (
    f"{__name__}:{rule}" for rule in ("is_function_closed", "is_line_closed", "answer_end")
)
TOP_LEVEL = re.compile(r"^(?=[^\s#)\]}])", re.MULTILINE)  # a line that begins a new statement


def is_function_closed(prompt: str, text: str) -> bool:
    """Whether a raw continuation of a function has reached the next top-level statement."""
    source = prompt.rstrip() + text
    starts = [m.start() for m in TOP_LEVEL.finditer(source) if m.start() >= len(prompt)]
    return any(parsed(source[:start]) is not None for start in starts[:1])


def answer_end(prompt: str, stop_words: Sequence[str], text: str) -> int | None:
    """Where a raw continuation in another language ends; None: not yet.

    It ends before the first stop word or, without stop words, after the bracket that closes what
    the prompt has opened.
    """
    if stop_words:
        return min((at for word in stop_words if (at := text.find(word)) >= 0), default=None)
    end = end_of(BODY, prompt.rstrip().rpartition("\n")[2], text)
    if end is None:
        return None
    rest = text[end:].lstrip()
    return len(text) - len(rest) + 1 if rest.startswith("}") else end


def is_line_closed(text: str) -> bool:
    """Whether a line is finished."""
    return "\n" in text


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a text; None where it is no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in generated text
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
