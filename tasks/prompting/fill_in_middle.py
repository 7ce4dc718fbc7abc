"""Which rows become infilling, and where the hole is.

Both hang on the row's id and the seed alone: a new row moves no other. The hole lies between two
places drawn evenly among all characters, as in the training of StarCoder (Li et al. 2023).
"""

from tasks.core.rows.hash_rank import RANKS, hash_rank


def hole(text: str, row_id: str, rate: float, seed: int) -> tuple[int, int] | None:
    """Start and end of the hole in a row's text; None where the row stays as it is.

    Args:
        text: What the hole is cut out of.
        row_id: Decides.
        rate: Share of rows that get a hole, 0..1.
        seed: Another seed, other rows.
    """
    digest = hash_rank(seed, "infill", row_id, size=24)
    draw, first, second = (int.from_bytes(digest[i : i + 8], "big") for i in (0, 8, 16))
    if draw >= rate * RANKS or not text:
        return None
    places = len(text) + 1
    one = first * places // RANKS
    other = second * (places - 1) // RANKS
    other += other >= one  # a hole is never empty
    return min(one, other), max(one, other)
