"""Rules about text that nobody wrote: generated code by its marker, encoded data by three patterns.

Patterns and limits are those of StarCoder 2 and The Stack v2 (arXiv:2402.19173); here a space may
follow the comma between hexadecimal bytes, as Python code is written.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from tasks.filtering.rules.row_view import Sample

BASE64 = re.compile(r"[a-zA-Z0-9+/\n=]{64,}")
HEXADECIMAL = re.compile(r"(?:\b(?:0x|\\x)?[0-9a-fA-F]{2}\b,?\s*){8,}")
TWO_BYTES = re.compile(
    r"[0-9a-fA-F]{2}\b,?\s*(?:0x|\\x)?[0-9a-fA-F]{2}\b"
)  # quick; in each of them
ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4}){8,}")


def generated_marker(row: Sample, markers: Sequence[str], first_lines: int) -> str:
    """The first of the markers in the first lines of the output, "" if there is none."""
    head = "\n".join(row.lines[:first_lines]).lower()
    return next((marker for marker in markers if marker.lower() in head), "")


def longest_encoded(row: Sample) -> float:
    """Longest run of encoded data in characters."""
    return max((length for runs in encoded_runs(row.output) for length in runs), default=0)


def encoded_share(row: Sample) -> float:
    """Share of the output inside runs of encoded data, of the pattern that covers most."""
    return max(map(sum, encoded_runs(row.output))) / max(1, len(row.output))


@lru_cache(maxsize=1)  # both rules ask for the same row
def encoded_runs(text: str) -> tuple[tuple[int, ...], ...]:
    """Lengths of the runs of encoded data, one tuple a pattern."""
    runs = [tuple(len(m[0]) for m in BASE64.finditer(text))]
    if TWO_BYTES.search(text):
        runs.append(tuple(len(m[0]) for m in HEXADECIMAL.finditer(text)))
    if "\\u" in text:
        runs.append(tuple(len(m[0]) for m in ESCAPED.finditer(text)))
    return tuple(runs)
