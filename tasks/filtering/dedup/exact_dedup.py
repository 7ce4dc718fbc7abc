"""Exact duplicates: two rows with the same question and the same answer.

Whitespace counts, because it means something in code, except at the ends of lines and around the
text. A blank answer equals no other one.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

KEY_BYTES = 16
NO_TWIN = -1


def text_key(*texts: str) -> bytes | None:
    """Digest of trimmed texts; None if all are blank."""
    if not any(texts):
        return None
    return blake2b("\0".join(texts).encode(), digest_size=KEY_BYTES).digest()


def trimmed(text: str) -> str:
    """A text without whitespace at the ends of lines and blank lines around them."""
    return "\n".join(map(str.rstrip, text.split("\n"))).strip("\n")


class ExactSearch:
    """Kept rows by their text.

    Attributes:
        is_candidate: Rows that share their text with another row.
    """

    def __init__(self, groups: Numbers | None, total: int) -> None:
        """Start with no row kept.

        Args:
            groups: A number per row; rows of one group have the same text. None: texts are not
                compared.
            total: Number of rows.
        """
        self._groups = np.arange(total) if groups is None else groups
        self._kept = np.full(int(self._groups.max(initial=-1)) + 1, NO_TWIN, np.int64)
        self.is_candidate = np.bincount(self._groups, minlength=1)[self._groups] > 1

    def look_up(self, row: int) -> list[int]:
        """The kept row that has the text of a row, if any."""
        twin = int(self._kept[self._groups[row]])
        return [] if twin == NO_TWIN else [twin]

    def keep(self, rows: int | Numbers) -> None:
        """Let later rows find these, of which no two share a text."""
        self._kept[self._groups[rows]] = rows

    def twins(self) -> Numbers:
        """For each row the kept row that has the same text, else `NO_TWIN`."""
        twins = self._kept[self._groups]
        return np.where(twins == np.arange(len(twins)), NO_TWIN, twins)
