"""Untrusted text before it is shown: escapes control characters and bytes in file names, and
shortens errors of libraries.

A terminal executes escape codes, and bidirectional or invisible characters make a text look
different from what it is.
"""

import re
import unicodedata
from contextlib import suppress

_SURROGATE = re.compile("[\ud800-\udfff]")
_UNUSUAL = re.compile(r"[^\x20-\x7e\n\t]")


def escape_controls(text: str) -> str:
    """The text with control characters, format characters (bidirectional ones among them) and
    surrogates written as ⟨U+XXXX⟩; newlines and tabs stay."""
    return _UNUSUAL.sub(_escaped, text)


def printable(text: str) -> str:
    """Text that can be encoded: bytes of a file name that are not UTF-8 are shown as \\xNN.

    It is the same in every locale: in one without UTF-8, Python gives the bytes of UTF-8 as
    surrogates, too.
    """
    if not _SURROGATE.search(text):
        return text
    with suppress(UnicodeEncodeError):  # a surrogate that stands for no byte
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return _SURROGATE.sub(lambda found: _shown(ord(found[0])), text)


def _shown(code: int) -> str:
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return f"⟨U+{ord(character):04X}⟩"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters; without one, its class."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
