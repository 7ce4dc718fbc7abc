"""Exact duplicates: two rows share a text, whitespace and Python comments aside."""

import re
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

KEY_BYTES = 16

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


def in_shared_group(groups: Numbers) -> NDArray[np.bool_]:
    """Rows whose group number another row has too."""
    return np.bincount(groups, minlength=1)[groups] > 1
