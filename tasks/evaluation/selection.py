"""Selection by hash: fixed choices of rows, prompts and problems where not all are used.

Each item is ranked by a hash of its id and the seed, so a choice does not depend on the order of
the items, a larger choice contains the smaller one, and a new item displaces few others.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def rank(name: str, seed: int) -> bytes:
    """A pseudorandom value that is fixed for a name and a seed."""
    return hashlib.blake2b(name.encode(), key=seed.to_bytes(8, "big"), digest_size=16).digest()


def choose(
    items: Sequence[T], count: int | None, seed: int, name: Callable[[T], str]
) -> list[T]:
    """A fixed choice of `count` items, in their order; None: all of them."""
    if count is None:
        return list(items)
    taken = sorted(range(len(items)), key=lambda i: rank(name(items[i]), seed))[:count]
    return [items[i] for i in sorted(taken)]


@dataclass(frozen=True)
class RowChoice:
    """Rows to measure.

    Attributes:
        row_ids: Their ids.
        tokens: Their tokens.
        left_out: Rows that were not chosen.
    """

    row_ids: frozenset[str]
    tokens: int
    left_out: int


def choose_rows(
    lengths: Iterable[tuple[str, int]], max_tokens: int | None, seed: int = 0
) -> RowChoice:
    """Choose whole rows up to a number of tokens, at least one row.

    Args:
        lengths: (row id, tokens) of each row.
        max_tokens: None: all rows.
        seed: Another seed, another choice.
    """
    rows = sorted(lengths, key=lambda row: (rank(row[0], seed), row[0]))
    taken, tokens = 0, 0
    for _, length in rows:
        if max_tokens is not None and taken and tokens + length > max_tokens:
            break
        taken, tokens = taken + 1, tokens + length
    return RowChoice(frozenset(row for row, _ in rows[:taken]), tokens, len(rows) - taken)
