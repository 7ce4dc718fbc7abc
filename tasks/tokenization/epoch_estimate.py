"""What an epoch will be, told before any GPU minute is spent.

How many rows or tokens a step sees is the training's choice, which this stage must not read: so the
steps are told for a range of batches.
"""

from collections.abc import Mapping
from typing import Any

from tasks.tokenization.audit import Audit

ROWS_A_STEP = (1, 2, 4, 8, 16, 32, 64)
TOKENS_A_STEP = tuple(2**n for n in range(11, 18))
TOLD_ROWS, TOLD_TOKENS = (4, 16), (4096, 16384)


def preflight(train: Audit, too_long: int, max_tokens: int) -> dict[str, Any]:
    """Numbers of the split that is trained on.

    Args:
        train: Its audit.
        too_long: Rows of it that were left out for their length.
        max_tokens: Longest row that is taken.
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
    """Steps that see `total` rows or tokens once, the last one perhaps a smaller one."""
    return -(-total // a_step)


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """The numbers in words."""
    too_long = numbers["rows_too_long"]
    epoch = numbers["steps_an_epoch"]
    by_rows = [f"{epoch['by_rows'][str(n)]:,} steps of {n} rows" for n in TOLD_ROWS]
    by_tokens = [f"{epoch['by_tokens'][str(n)]:,} of {n:,} tokens" for n in TOLD_TOKENS]
    return [
        f"to train on: {numbers['rows']:,} rows, {numbers['tokens']:,} tokens, "
        f"{numbers['trained_share']:.1%} of them with loss; {too_long:,} rows over "
        f"{numbers['max_tokens']:,} tokens left out",
        f"packed: {numbers['windows']:,} windows of {numbers['window_tokens']:,} tokens, "
        f"{numbers['padding_share']:.1%} padding",
        f"an epoch: {', '.join([*by_rows, *by_tokens])}",
    ]
