"""Escapes control characters in untrusted text before it is shown.

A terminal executes escape codes, and bidirectional or invisible characters make a text look
different from what it is.
"""

import re
import unicodedata

_UNUSUAL = re.compile(r"[^\x20-\x7e\n\t]")


def escape_controls(text: str) -> str:
    """The text with control characters, format characters (bidirectional ones among them) and
    surrogates written as ⟨U+XXXX⟩; newlines and tabs stay."""
    return _UNUSUAL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return f"⟨U+{ord(character):04X}⟩"
