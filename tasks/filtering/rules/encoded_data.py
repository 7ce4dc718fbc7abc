"""Rules: encoded data (base64, hexadecimal, escapes) by three patterns.

Patterns and thresholds are those of StarCoder 2 and The Stack v2 (arXiv:2402.19173), except that a
space may follow the comma between hexadecimal bytes, as in formatted Python.
"""

import re
from functools import lru_cache

from tasks.filtering.rules.protocol import Rule
from tasks.filtering.rules.row_view import RowView

BASE64 = re.compile(r"[a-zA-Z0-9+/\n=]{64,}")
HEXADECIMAL = re.compile(r"(?:\b(?:0x|\\x)?[0-9a-fA-F]{2}\b,?\s*){8,}")
# contained in every match of HEXADECIMAL, and far quicker to search for
TWO_BYTES = re.compile(r"[0-9a-fA-F]{2}\b,?\s*(?:0x|\\x)?[0-9a-fA-F]{2}\b")
ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4}){8,}")


def longest_encoded(row: RowView) -> float:
    """Length of the longest run of encoded data."""
    return max((length for runs in encoded_runs(row.output) for length in runs), default=0)


def encoded_share(row: RowView) -> float | None:
    """Share of the code inside runs of encoded data, for the pattern that covers most."""
    return max(map(sum, encoded_runs(row.code))) / len(row.code) if row.code else None


@lru_cache(maxsize=1)  # both rules measure the same text of most rows in turn
def encoded_runs(text: str) -> tuple[tuple[int, ...], ...]:
    """Lengths of the runs of encoded data, one tuple per pattern."""
    runs = [tuple(len(m[0]) for m in BASE64.finditer(text))]
    if TWO_BYTES.search(text):
        runs.append(tuple(len(m[0]) for m in HEXADECIMAL.finditer(text)))
    if "\\u" in text:
        runs.append(tuple(len(m[0]) for m in ESCAPED.finditer(text)))
    return tuple(runs)


ENCODED_RUN = Rule(
    name="encoded_run",
    setting="max_encoded_characters",
    unit="characters",
    measure=longest_encoded,
    threshold=lambda settings: settings.max_encoded_characters,
)
ENCODED_SHARE = Rule(
    name="encoded_share",
    setting="max_encoded_share",
    unit="of the characters",
    measure=encoded_share,
    threshold=lambda settings: settings.max_encoded_share,
)
