"""Validation: loss and token accuracy on held-out windows, summed without keeping logits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import WindowTensors, window_tensors
from tasks.training.batches import split_window, trained_tokens
from tasks.training.distributed.data_parallel import SINGLE_PROCESS, DataParallel


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes:
        loss: Mean cross-entropy per trained token, in nats.
        token_accuracy: Share of trained tokens with the highest logit at their position.
        tokens: Trained tokens measured.
    """

    loss: float
    token_accuracy: float
    tokens: int


Measure = Callable[[WindowTensors], tuple[Tensor, Tensor]]


def validate(
    measure: Measure,
    windows: Iterable[Window],
    device: torch.device,
    limit: int | None = None,
    *,
    window_tokens: int = 2**31,
    parallel: DataParallel = SINGLE_PROCESS,
) -> Validation | None:
    """Validate a model on windows; None if they hold no trained token.

    Args:
        measure: Returns loss and hit of each trained token of a window, without dropout.
        windows: Held-out windows.
        device: Of the model.
        limit: Maximum number of trained tokens to measure.
        window_tokens: Longer windows are measured in parts.
        parallel: Processes that measure a part each; all return the same result.
    """
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for number, window in enumerate(windows):
        count += trained_tokens([window])
        if number % parallel.size == parallel.rank:
            for part in split_window(window, window_tokens):
                tensors = window_tensors(part, device)
                if tensors.trained_tokens:
                    losses, right = measure(tensors)
                    loss += losses.double().sum()
                    hits += right.sum()
        if limit is not None and count >= limit:
            break
    if not count:
        return None
    return Validation(parallel.add(loss).item() / count, parallel.add(hits).item() / count, count)
