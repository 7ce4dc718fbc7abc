"""Audit of the tokenized files: counts and checks of the labels, read back as training reads them.

A mask that is off by one token raises no error: the model trains, only worse. So all labels are
counted once, from the written files rather than from the values they were written from.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np

from tasks.core.errors import PipelineError
from tasks.core.models.packed_dataset import IGNORED, Ints, Window, Windows

MAX_INEXACT_SHARE = 0.01  # more means that the tokenizer is not made for such text
WINDOWS_AT_ONCE = 32  # bounds memory, yet needs few NumPy calls


@dataclass
class Audit:
    """Counts of one split."""

    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    windows: int = 0
    window_tokens: int = 0
    longest_row: int = 0
    longest_window: int = 0
    rows_without_trained_eos: int = 0  # whose last trained token is no end token
    rows_that_go_on: int = (
        0  # of them, those that may: windows of a text, rows not trained to the end
    )
    rows_without_labels: int = 0
    labels_that_are_not_their_token: int = 0
    inexact_rows: int = 0  # dropped: their tokens decode to another text

    def shares(self) -> dict[str, float]:
        """Shares of trained tokens and of padding, and rows per window."""
        room = self.windows * self.window_tokens
        return {
            "trained_share": round(self.trained_tokens / max(1, self.tokens), 6),
            "padding_share": round(1 - self.tokens / max(1, room), 6),
            "rows_a_window": round(self.rows / max(1, self.windows), 3),
        }

    def as_json(self) -> dict[str, float]:
        """Counts and shares, flat."""
        return asdict(self) | self.shares()


def audit(
    windows: Windows, window_tokens: int, ends: Collection[int], inexact_rows: int, going_on: int
) -> Audit:
    """Count all windows of a split."""
    found = Audit(
        windows=len(windows),
        window_tokens=window_tokens,
        inexact_rows=inexact_rows,
        rows_that_go_on=going_on,
    )
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        count(found, *windows.several(first, first + WINDOWS_AT_ONCE), ends)
    return found


def count(found: Audit, samples: Window, sizes: Ints, ends: Collection[int]) -> None:
    """Add the samples of some windows to the counts.

    Args:
        found: The counts.
        samples: Samples of several windows, one after another.
        sizes: The number of samples of each window.
        ends: Ids of end tokens: EOS, and control tokens that end a turn.
    """
    labels, ids = samples.labels, samples.input_ids
    trained = labels != IGNORED
    starts, stops = samples.cu_seqlens[:-1], samples.cu_seqlens[1:]
    found.rows += len(samples.row_ids)
    found.tokens += len(ids)
    found.trained_tokens += int(np.count_nonzero(trained))
    windows = np.diff(stops[np.cumsum(sizes) - 1], prepend=0)
    found.longest_window = max(found.longest_window, int(windows.max()))
    found.longest_row = max(found.longest_row, int((stops - starts).max()))
    last = np.maximum.reduceat(np.where(trained, np.arange(len(ids)), 0), starts)
    is_end = np.isin(labels[last], list(ends))
    found.rows_without_trained_eos += int(np.count_nonzero(~is_end))
    found.labels_that_are_not_their_token += int(np.count_nonzero(trained & (labels != ids)))
    found.rows_without_labels += int(np.count_nonzero(~np.logical_or.reduceat(trained, starts)))


def check(split: str, found: Audit) -> None:
    """Stop before training on wrong labels.

    Raises:
        PipelineError: A row has no labels or no trained end-of-text token, a label is not its
            token, or a window is too long.
    """
    if found.rows_without_labels:
        raise PipelineError(
            f"{split}: {found.rows_without_labels:,} of {found.rows:,} rows have all labels masked",
            "This is a bug of the stage tokenize: report it with its audit.json.",
        )
    unended = found.rows_without_trained_eos - found.rows_that_go_on
    if unended > 0:
        raise PipelineError(
            f"{split}: {unended:,} of {found.rows:,} rows don't end in a trained end-of-text token",
            "Check eos_token in the base model's tokenizer_config.json.",
        )
    wrong = found.labels_that_are_not_their_token
    too_long = found.longest_window > found.window_tokens
    if wrong or too_long:
        raise PipelineError(
            f"{split}: {wrong:,} labels differ from their token, longest window "
            f"{found.longest_window} of {found.window_tokens} tokens",
            "This is a bug of the stage tokenize: report it with its audit.json.",
        )


def check_exact(split: str, inexact: int, total: int) -> None:
    """Stop if decoding often does not give back the text.

    Raises:
        PipelineError: More than `MAX_INEXACT_SHARE` of the rows decode to another text.
    """
    if inexact > MAX_INEXACT_SHARE * total:
        raise PipelineError(
            f"{split}: {inexact:,} of {total:,} rows decode to another text than was tokenized, "
            f"more than {100 * MAX_INEXACT_SHARE:.0f} %",
            "Use a base model with a byte-level tokenizer, or check its tokenizer.json.",
        )
