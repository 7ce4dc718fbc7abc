"""What to do about rows that are dropped: each reason has its own remedy."""

from collections.abc import Callable, Iterator
from math import ceil, floor

from tasks.core.errors import PipelineError
from tasks.tokenization.row_checks import (
    DENSITY,
    EMPTY,
    MASKED,
    REFUSED,
    TOO_LONG,
    CheckedRows,
    RowLimits,
)

NOTED_SHARE = 0.1  # of a split: fewer dropped rows are in the counts alone


def check_not_empty(
    rows: CheckedRows, limits: RowLimits, model_tokens: int, window_tokens: int
) -> None:
    """Refuse a split without rows.

    Raises:
        PipelineError: All its rows were dropped, or it was empty before.
    """
    if len(rows.samples.rows):
        return
    if not rows.counts:
        raise PipelineError(
            f"{rows.split}: the split has 0 rows", "Check what the stage prompt wrote."
        )
    reasons = ", ".join(f"{number:,} {why}" for why, number in sorted(rows.counts.items()))
    main = max(sorted(rows.counts), key=rows.counts.__getitem__)
    problem, remedy = _explained(rows, main, limits, model_tokens, window_tokens)
    raise PipelineError(
        f"{rows.split}: none of {len(rows.tokens):,} rows is left ({reasons}); {problem}", remedy
    )


def notes(
    rows: CheckedRows, limits: RowLimits, model_tokens: int, window_tokens: int
) -> Iterator[str]:
    """A line for each reason that drops a large share of the rows."""
    for why, number in sorted(rows.counts.items()):
        if number >= NOTED_SHARE * len(rows.tokens):
            problem, remedy = _explained(rows, why, limits, model_tokens, window_tokens)
            share = f"{number:,} of {len(rows.tokens):,} rows"
            yield f"{rows.split}: {share} dropped, {why}: {problem}. {remedy}"


def _explained(
    rows: CheckedRows, reason: str, limits: RowLimits, model_tokens: int, window_tokens: int
) -> tuple[str, str]:
    """Problem and remedy of a reason."""
    indexes = [index for index, why, _, _ in rows.dropped if why == reason]
    values = [value for _, why, value, _ in rows.dropped if why == reason]
    explain: dict[str, Callable[[], tuple[str, str]]] = {
        TOO_LONG: lambda: _too_long(values, limits.max_tokens, model_tokens, window_tokens),
        DENSITY: lambda: _too_dense(values, limits.min_characters_per_token),
        REFUSED: lambda: (
            f"the chat template rejects them: {rows.encoded.column('problem')[indexes[0]]}",
            "Set prompt.template to instruction, or to the path of a Jinja chat template that "
            "writes them.",
        ),
        MASKED: lambda: (
            "they have no token that is trained",
            "Set tokenize.loss_on to everything, or give each row an answer, or a message or "
            "segment with train: true.",
        ),
        EMPTY: lambda: (
            "they have an empty output",
            "Name the column with the answers: columns: {output: NAME} of the source in "
            "ingest.sources.",
        ),
    }
    return explain.get(reason, lambda: ("their tokens decode to another text", ""))()


def _too_long(
    values: list[float], max_tokens: int, model_tokens: int, window_tokens: int
) -> tuple[str, str]:
    shortest, longest = int(min(values)), int(max(values))
    problem = f"they have {shortest:,} to {longest:,} tokens, max_tokens is {max_tokens:,}"
    if shortest > model_tokens:
        return problem, (
            f"Use a base model that takes {shortest:,} tokens (this one takes {model_tokens:,}), "
            "or set prompt.template to completion, which splits long texts."
        )
    wanted = min(longest, model_tokens)
    window = f" and tokenize.window_tokens to {wanted}" if wanted > window_tokens else ""
    return problem, f"Set tokenize.max_tokens to {wanted}{window}."


def _too_dense(values: list[float], least: float) -> tuple[str, str]:
    low, high = floor(100 * min(values)) / 100, ceil(100 * max(values)) / 100
    return (
        f"they have {low:g} to {high:g} bytes per token, min_characters_per_token is {least:g}",
        f"Set tokenize.min_characters_per_token to {low:g}.",
    )
