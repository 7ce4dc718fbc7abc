"""Exact duplicates: of all rows that share a text, whitespace and comments aside, one survives.

Rows that pass every other rule are taken in the order of their ids; a row is kept unless a kept one
has its text. So the survivors don't depend on the order of the rows, every row dropped here has a
twin that is kept, and no group loses all its rows. That is not the transitive closure of "shares a
text", which can join thousands of unlike rows.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

KEY_BYTES = 16
NO_TWIN = -1

Twins = NDArray[np.int64]

# a string (kept: it may hold #) or a comment
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


def find_twins(
    row_ids: Sequence[str], passes: NDArray[np.bool_], keys: Sequence[pa.Array]
) -> list[Twins]:
    """For each row and each kind of key, the kept row that has the same key.

    Args:
        row_ids: One id a row, unique.
        passes: Rows that no other rule rejects.
        keys: One array of digests a kind of text.

    Returns:
        For each kind an array of row numbers, `NO_TWIN` where no other kept row has the key. A row
        that passes and has a twin is a duplicate.
    """
    groups = [np.asarray(column.dictionary_encode().indices) for column in keys]
    holders = [np.full(int(codes.max(initial=-1)) + 1, NO_TWIN, dtype=np.int64) for codes in groups]
    candidates = np.flatnonzero(passes)
    for row in sorted(candidates.tolist(), key=row_ids.__getitem__):
        places = [(holder, codes[row]) for holder, codes in zip(holders, groups, strict=True)]
        if all(holder[code] == NO_TWIN for holder, code in places):
            for holder, code in places:
                holder[code] = row
    numbers = np.arange(len(row_ids))
    twins = [holder[codes] for holder, codes in zip(holders, groups, strict=True)]
    return [np.where(twin == numbers, NO_TWIN, twin) for twin in twins]
