"""How close a completion is to the reference: exact match, edit similarity, first line."""

import numpy as np


def is_exact(reference: str, text: str) -> bool:
    """Equal except for white space around both and at the ends of lines."""
    first, second = ([line.rstrip() for line in t.strip().splitlines()] for t in (reference, text))
    return first == second


def has_first_line(reference: str, text: str) -> bool:
    """Whether the first lines are equal."""
    first, second = (t.strip().partition("\n")[0].rstrip() for t in (reference, text))
    return first == second


def edit_similarity(reference: str, text: str) -> float:
    """1 - Levenshtein distance / length of the longer text, of texts without white space around
    them; as in the benchmarks RepoBench and CrossCodeEval, up to the choice of the divisor."""
    one, two = reference.strip(), text.strip()
    longest = max(len(one), len(two))
    return 1 - distance(one, two) / longest if longest else 1.0


def distance(one: str, two: str) -> int:
    """Levenshtein distance of two texts, a row of the table at a time."""
    columns = np.arange(len(two) + 1)
    letters = np.array([ord(c) for c in two], dtype=np.int64)
    row = columns
    for number, letter in enumerate(one, 1):
        best = np.empty_like(row)
        best[0] = number
        best[1:] = np.minimum(row[:-1] + (letters != ord(letter)), row[1:] + 1)
        # insertions depend on the value to the left: a running minimum, with one for each column
        row = np.minimum.accumulate(best - columns) + columns
    return int(row[-1])
