"""Loss and token accuracy on held-out windows, summed as they go: no logits are kept."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import WindowTensors, window_tensors
from tasks.training.batches import split_window, trained_tokens
from tasks.training.distributed.data_parallel import ALONE, Team


@dataclass(frozen=True)
class Validation:
    """What was measured.

    Attributes:
        loss: Mean cross-entropy of a trained token, in nats.
        token_accuracy: Share of trained tokens that are the likeliest by the token before.
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
    team: Team = ALONE,
) -> Validation | None:
    """Measure a model on windows; None where they hold no trained token.

    Args:
        measure: Gives loss and hit of each trained token of a window, without dropout.
        windows: Read one after another.
        device: The model's.
        limit: Stop once so many trained tokens are measured.
        window_tokens: A longer window is measured in parts.
        team: Processes that measure a part each; all get the same result.
    """
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for number, window in enumerate(windows):
        count += trained_tokens([window])
        if number % team.size == team.rank:
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
    return Validation(team.add(loss).item() / count, team.add(hits).item() / count, count)
