"""Content of an output: code, prose with code, prose or data, and the code of it that is measured.

The thresholds of The Stack v2 and StarCoder 2 are those of source files. So they apply to code from
files and to fenced code blocks, and not to prose, whose lines are paragraphs, nor to short answers.
"""

import json
import re

from tasks.core.languages.protocol import ParsedSource

CODE, MIXED, PROSE, DATA = "code", "prose with code", "prose", "data"
FROM_FILES = frozenset({"function", "edit", "file", "fill", "context"})  # kinds of rows
FENCE = re.compile(
    r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*\n(.*?)^[ \t]*\1", re.DOTALL | re.MULTILINE
)
# tags of blocks that hold no source code
NO_CODE = frozenset(
    {
        *("text", "txt", "plain", "plaintext", "output", "console", "log"),
        *("json", "jsonl", "csv", "tsv", "markdown", "md"),
    }
)
MIN_BLOCKS = 100  # characters of fenced code, below which shares and means say little
CODE_LINE = re.compile(
    r"[;{}]\s*$|^\s*(?:def|class|import|from \S+ import|return|for|while|if|else|elif|func|fn|"
    r"function|const|let|var|public|private|static|#include|use|SELECT|INSERT|UPDATE|CREATE)\b|"
    r"^\s*[\w.\[\]]+\s*[-+*/]?=[^=]|^\s*[\w.]+\([^)]*\)\s*$"
)
LETTERS = 0.3  # prose has more, data mostly less


def measured_code(kind: str, output: str) -> str:
    """The code of an output that the thresholds for code apply to; "" if there is none."""
    if kind in FROM_FILES:
        return output
    if "```" not in output and "~~~" not in output:
        return ""
    blocks = [body for _, tag, body in FENCE.findall(output) if tag and tag.lower() not in NO_CODE]
    code = "\n".join(blocks)
    return code if len(code) >= MIN_BLOCKS else ""


def content_of(kind: str, output: str, source: ParsedSource | None) -> str:
    """Class of an output: `CODE`, `MIXED`, `PROSE` or `DATA`.

    Args:
        kind: Of the row.
        output: The text.
        source: The output as a syntax tree; None if it does not parse.
    """
    if kind in FROM_FILES:
        return CODE
    if FENCE.search(output):
        return MIXED
    if source is not None and next(source.functions_and_methods(), None):
        return CODE
    if _is_json(output):
        return DATA
    lines = [line for line in output.splitlines() if line.strip()]
    if 2 * sum(bool(CODE_LINE.search(line)) for line in lines) > len(lines):
        return CODE
    letters = sum(map(str.isalpha, output))
    return PROSE if letters > LETTERS * len(output) else DATA


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
