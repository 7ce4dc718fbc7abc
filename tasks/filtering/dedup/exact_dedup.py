"""Exact duplicates: two rows share a text, whitespace and Python comments aside."""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

KEY_BYTES = 16
NO_TWIN = -1

# a string (kept: it may contain #) or a comment
STRING_OR_COMMENT = re.compile(
    r'("""(?:[^"\\]|\\.|"(?!""))*"""'
    r"|'''(?:[^'\\]|\\.|'(?!''))*'''"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'(?:[^'\\\n]|\\.)*')"
    r"|#[^\n]*",
    re.DOTALL,
)


def text_key(text: str, is_python: bool) -> bytes:
    """Digest of a text without whitespace and, if it is Python, without comments."""
    if is_python and "#" in text:
        text = STRING_OR_COMMENT.sub(lambda match: match[1] or "", text)
    return blake2b("".join(text.split()).encode(), digest_size=KEY_BYTES).digest()


class ExactSearch:
    """Kept rows by the text that they hold, for each kind of text.

    Attributes:
        is_candidate: Rows that share a text of any kind with another row.
    """

    def __init__(self, kinds: Sequence[Numbers], total: int) -> None:
        """Start with no row kept; for each kind of text, rows of one group have the same text."""
        self._kinds = kinds
        self._kept = [np.full(int(g.max(initial=-1)) + 1, NO_TWIN, np.int64) for g in kinds]
        self.is_candidate = np.zeros(total, dtype=bool)
        for groups in kinds:
            self.is_candidate |= np.bincount(groups, minlength=1)[groups] > 1

    def look_up(self, row: int) -> list[int]:
        """Kept rows that share a text with a row."""
        found = (int(kept[groups[row]]) for kept, groups in self._pairs())
        return [twin for twin in found if twin != NO_TWIN]

    def keep(self, rows: int | Numbers) -> None:
        """Let later rows find these, of which no two share a text."""
        for kept, groups in self._pairs():
            kept[groups[rows]] = rows

    def twins(self) -> list[Numbers]:
        """For each kind of text the kept row that has the same one, else `NO_TWIN`."""
        found = [kept[groups] for kept, groups in self._pairs()]
        return [np.where(twin == np.arange(len(twin)), NO_TWIN, twin) for twin in found]

    def _pairs(self) -> Iterator[tuple[Numbers, Numbers]]:
        return zip(self._kept, self._kinds, strict=True)
