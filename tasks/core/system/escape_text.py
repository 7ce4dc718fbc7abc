"""Text of other people, fit to be shown: a terminal obeys escape codes, and a person does not see
characters that hide or reorder what stands beside them."""

import re
import unicodedata

SUSPECTS = re.compile(r"[^\x20-\x7e\n\t]")


def spelled(text: str) -> str:
    """The text with control and format characters (bidirectional ones too) and surrogates spelled
    out; newlines and tabs stay."""
    return SUSPECTS.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    character = found[0]
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return f"⟨U+{ord(character):04X}⟩"
