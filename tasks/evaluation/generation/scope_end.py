"""Scope end: where a completion of a rest of line, statement, block or function body is finished.

Works on text alone, by brackets and indentation, so that it holds for every language and for
unfinished code. The benchmark uses only spans whose own end it finds (`completion.spans`), so a
perfect completion is never cut wrongly. A module of its own with few imports, because its code is
part of the key of a cached completion.
"""

import re

RULE = f"{__name__}:end_of"
LINE, STATEMENT, BLOCK, BODY = "rest of line", "statement", "block", "function body"
SIZES = (LINE, STATEMENT, BLOCK, BODY)
_TAB = 8  # columns; only comparisons of lines with each other depend on it
_TOKEN = re.compile(
    r"'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|[()\[\]{}]|\n(?P<indent>[ \t]*)(?=[^\s])"
)


def end_of(size: str, before: str, text: str) -> int | None:
    """Where the scope that a text begins in ends; None: not yet.

    A rest of line ends with its line. A statement ends before the next line that is not indented
    further, a block and a body before the next line that is indented less; all end before a
    bracket that was opened before the text.

    Args:
        size: One of `SIZES`.
        before: The line before the text, up to the text.
        text: A completion, or the rest of the file.
    """
    if size == LINE:
        end = text.find("\n")
        return end if end >= 0 else None
    first = len(text) - len(text.lstrip())
    indent = _indent(before, text[:first])
    depth = 0
    for token in _TOKEN.finditer(text, max(0, first - 1)):
        if token["indent"] is not None:
            column = len(token["indent"].expandtabs(_TAB))
            if token.start() >= first and not depth and _is_over(size, column, indent):
                return token.start()
        elif token[0] in "([{":
            depth += 1
        elif token[0] in ")]}":
            depth -= 1
            if depth < 0:
                return token.start()
    return None


def _indent(before: str, blank: str) -> int | None:
    """Column of the first line of a scope; None if it begins after code on the same line."""
    if "\n" in blank:
        return len(blank.rpartition("\n")[2].expandtabs(_TAB))
    return None if before.strip() else len((before + blank).expandtabs(_TAB))


def _is_over(size: str, column: int, indent: int | None) -> bool:
    if indent is None:
        return True
    return column <= indent if size == STATEMENT else column < indent
