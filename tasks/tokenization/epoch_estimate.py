"""Estimate of an epoch: rows, tokens and optimizer steps, before any GPU time is spent.

The batch size is a setting of training. This stage must not read it, or changing it would tokenize
again; so the steps are counted for a range of batch sizes.
"""

from collections.abc import Mapping
from typing import Any

from tasks.tokenization.audit import Audit

ROWS_A_STEP = (1, 2, 4, 8, 16, 32, 64)
TOKENS_A_STEP = tuple(2**n for n in range(11, 18))
SHOWN_ROWS, SHOWN_TOKENS = (4, 16), (4096, 16384)


def estimate_epoch(train: Audit, too_long: int, max_tokens: int) -> dict[str, Any]:
    """The estimate as stored in audit.json.

    Args:
        train: Audit of the training split.
        too_long: Rows that were dropped because of their length.
        max_tokens: The limit that they exceeded.
    """
    shares = train.shares()
    return {
        "rows": train.rows,
        "rows_too_long": too_long,
        "max_tokens": max_tokens,
        "tokens": train.tokens,
        "trained_tokens": train.trained_tokens,
        "trained_share": shares["trained_share"],
        "windows": train.windows,
        "window_tokens": train.window_tokens,
        "padding_share": shares["padding_share"],
        "steps_an_epoch": {
            "by_rows": {str(n): steps(train.rows, n) for n in ROWS_A_STEP},
            "by_tokens": {str(n): steps(train.tokens, n) for n in TOKENS_A_STEP},
        },
    }


def steps(total: int, a_step: int) -> int:
    """Steps that see `total` rows or tokens once; the last step may be smaller."""
    return -(-total // a_step)


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """The estimate as lines of text."""
    too_long = numbers["rows_too_long"]
    epoch = numbers["steps_an_epoch"]
    by_rows = [f"{epoch['by_rows'][str(n)]:,} of {n} rows" for n in SHOWN_ROWS]
    by_tokens = [f"{epoch['by_tokens'][str(n)]:,} of {n:,} tokens" for n in SHOWN_TOKENS]
    return [
        f"to train on: {numbers['rows']:,} rows, {numbers['tokens']:,} tokens, "
        f"{100 * numbers['trained_share']:.1f} % of them with loss; left out: "
        f"{too_long:,} rows of more than {numbers['max_tokens']:,} tokens",
        f"packed: {numbers['windows']:,} windows of {numbers['window_tokens']:,} tokens, "
        f"{100 * numbers['padding_share']:.1f} % padding",
        f"one epoch, by the size of a step: {' or '.join([*by_rows, *by_tokens])}",
    ]
