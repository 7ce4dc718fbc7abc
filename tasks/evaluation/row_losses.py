"""Teacher-forced losses and correct tokens of each row, of base and tuned model in one pass.

Rows are packed into windows, isolated from each other by attention, and each window runs twice:
with the adapter off and on. Losses are computed in chunks of tokens: a tensor of all logits never
exists, and memory depends on the window, not on the number of rows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.core.models.chunked_loss import token_losses
from tasks.core.models.device import beyond_float16
from tasks.core.models.packed_dataset import IGNORED, Window
from tasks.core.models.packed_forward import (
    WindowTensors,
    forward_hidden,
    loss_head,
    window_tensors,
)
from tasks.core.rows.hash_rank import keyed_rank
from tasks.evaluation.ending_tokens import Endings
from tasks.evaluation.results import RowResult


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
    """Choose whole rows up to a number of tokens, the same ones whatever their order.

    Rows are ranked by hash, so that a new row displaces few others. At least one is chosen.

    Args:
        lengths: (row id, tokens) of each row.
        max_tokens: None: all rows.
        seed: Another seed, another choice.
    """
    rows = sorted(lengths, key=lambda row: (keyed_rank(row[0], seed), row[0]))
    taken, tokens = 0, 0
    for _, length in rows:
        if max_tokens is not None and taken and tokens + length > max_tokens:
            break
        taken, tokens = taken + 1, tokens + length
    return RowChoice(frozenset(row for row, _ in rows[:taken]), tokens, len(rows) - taken)


def plain_row(row_id: str, ids: list[int], given: int = 1) -> Window:
    """A text's tokens as a row; all but the first `given` are predicted."""
    tokens = np.asarray(ids, dtype=np.int64)
    labels = tokens.copy()
    labels[:given] = IGNORED
    return Window(
        tokens,
        labels,
        np.arange(len(tokens), dtype=np.int64),
        np.asarray([0, len(tokens)], dtype=np.int32),
        (row_id,),
    )


def measure(
    model: Any,
    windows: Iterable[Window],
    *,
    clusters: Mapping[str, str],
    byte_count: Callable[[list[int]], int],
    endings: Endings,
    done: Callable[[int], None] = lambda tokens: None,
) -> list[RowResult]:
    """Losses and correct tokens of every row, with the adapter off and on.

    Args:
        model: A `PeftModel` in eval mode.
        windows: Packed rows.
        clusters: Row id -> project; a row that is not in it is its own cluster.
        byte_count: Token ids -> UTF-8 bytes of their text.
        endings: Finds the tokens that are measured apart from the content.
        done: Called with the tokens measured so far, after each window.

    Returns:
        One result per row, in order; rows without a labelled token have 0 tokens.
    """
    device = loss_head(model).weight.device
    results: list[RowResult] = []
    tokens = 0
    for window in windows:
        tensors = window_tensors(window, device)
        places = tensors.predictors.cpu().numpy()
        # two groups for each row, which is a sequence in the window: its content and its endings
        group_of = 2 * (np.searchsorted(window.cu_seqlens, places, "right") - 1)
        group_of += endings.mask(window)[places + 1]
        with torch.inference_mode():
            with model.disable_adapter():
                base = _sums(model, tensors, group_of, 2 * len(window.row_ids))
            tuned = _sums(model, tensors, group_of, 2 * len(window.row_ids))
        counts = np.bincount(group_of, minlength=2 * len(window.row_ids))
        targets = tensors.targets.cpu().numpy()
        for index, row_id in enumerate(window.row_ids):
            content, ending = 2 * index, 2 * index + 1
            results.append(
                RowResult(
                    row_id=row_id,
                    cluster=clusters.get(row_id, row_id),
                    tokens=int(counts[content]),
                    text_bytes=byte_count(targets[group_of == content].tolist()),
                    base_loss_sum=float(base[0][content]),
                    tuned_loss_sum=float(tuned[0][content]),
                    base_correct=int(base[1][content]),
                    tuned_correct=int(tuned[1][content]),
                    ending_tokens=int(counts[ending]),
                    base_ending_loss_sum=float(base[0][ending]),
                    tuned_ending_loss_sum=float(tuned[0][ending]),
                    base_ending_correct=int(base[1][ending]),
                    tuned_ending_correct=int(tuned[1][ending]),
                )
            )
        tokens += tensors.tokens
        done(tokens)
    return results


def _sums(
    model: Any, window: WindowTensors, group_of: NDArray[np.int64], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Summed loss and number of correct tokens of each group of a window's trained tokens."""
    if not window.trained_tokens:
        return np.zeros(groups), np.zeros(groups)
    hidden = forward_hidden(model, window)[window.predictors]
    losses, hits = token_losses(hidden, loss_head(model), window.targets)
    # summed on the CPU in 64 bits: a GPU adds in no fixed order, so sums would vary between runs
    values = losses.double().cpu().numpy()
    if hidden.dtype == torch.float16 and not np.isfinite(values).all():
        raise beyond_float16("the loss of a row")
    return (
        np.bincount(group_of, values, groups).astype(np.float64),
        np.bincount(group_of, hits.double().cpu().numpy(), groups).astype(np.float64),
    )
