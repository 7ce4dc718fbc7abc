"""Text for a terminal: wrapped between words, with decisions and verdicts in color.

Where the output is not a terminal, lines keep their length and have no color.
"""

import codecs
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

PLAIN = {  # for terminals and files whose encoding lacks these characters
    **dict.fromkeys("−–—·•", "-"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("‘’", "'"),
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "×": "x",
    "…": "...",
}
SHOW_CURSOR = "\x1b[?25h"

COLORS = {
    "HIT": "green",
    "RUN": "yellow",
    "MAYBE": "cyan",
    **dict.fromkeys(("improved", "Improved"), "green"),
    **dict.fromkeys(("inconclusive", "Inconclusive"), "yellow"),
    **dict.fromkeys(("regressed", "Regressed"), "red"),
    "cached": "green",
    "error": "red",
}
WORDS = re.compile(rf"\b(?:{'|'.join(COLORS)})\b")
MAX_INDENT = 28  # of the lines after the first
# columns of a line end with two spaces; lines after the first begin below the last column
PERCENT = re.compile(r"(?<=\d) (?=%)")  # no line ends there
COLUMNS = re.compile(rf"\s*(?=\S)(?:.{{0,{MAX_INDENT}}}\s{{2,}}(?=\S))?")


def print_any_text() -> None:
    """Let standard output and error take any character: one that their encoding lacks is written as
    a similar one, or as "?"."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in lacking), error.end


def show(text: str = "", file: TextIO | None = None) -> None:
    """Print lines, for a terminal wrapped and colored."""
    stream = file or sys.stdout
    if stream.isatty():
        text = "\n".join(colored(line) for line in wrapped(text.split("\n"), width()))
    print(text, file=stream, flush=True)


def write(console: "Console", text: str) -> None:
    """Print lines to a rich console, above its progress bars."""
    from rich.text import Text

    if console.is_terminal:
        text = "\n".join(colored(line) for line in wrapped(text.split("\n"), console.width))
    console.print(Text.from_ansi(text), soft_wrap=True, highlight=False)


def restore() -> None:
    """Show the cursor, which a progress bar hides, however its program ended."""
    if _is_dumb():
        return
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed and stream.isatty():
            stream.write(SHOW_CURSOR)
            stream.flush()
            return


def _is_dumb() -> bool:
    """Whether the terminal would print control sequences as text."""
    return os.environ.get("TERM") == "dumb"


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size().columns


def wrapped(lines: Iterable[str], columns: int) -> list[str]:
    """Lines of limited width, cut between words; a longer word, such as a path, is whole.

    A continued line begins below the last column of its first line.
    """
    found: list[str] = []
    for line in lines:
        head = COLUMNS.match(line)
        indent = " " * min(len(head[0]) if head else 0, MAX_INDENT + 2, columns // 2)
        parts = textwrap.wrap(
            PERCENT.sub("\N{NO-BREAK SPACE}", line),
            columns,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
            drop_whitespace=True,
            tabsize=8,
        )
        found += [part.replace("\N{NO-BREAK SPACE}", " ") for part in parts] or [""]
    return found


def colored(text: str) -> str:
    """Text with decisions and verdicts in color, unless NO_COLOR is set."""
    if os.environ.get("NO_COLOR") or _is_dumb():
        return text
    return WORDS.sub(lambda found: click.style(found[0], fg=COLORS[found[0]]), text)
