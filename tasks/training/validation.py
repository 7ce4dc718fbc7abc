"""Loss and token accuracy on held-out windows, summed as they go: no logits are kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tasks.core.losses import token_losses
from tasks.core.modeling import forward_hidden, head_of, window_tensors
from tasks.core.windows import Window


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


def validate(
    model: Any, windows: Iterable[Window], device: torch.device, limit: int | None = None
) -> Validation | None:
    """Measure a model on windows; None where they hold no trained token.

    Args:
        model: Put into eval mode for the time, so that dropout is off, and back.
        windows: Read one after another.
        device: The model's.
        limit: Stop once so many trained tokens are measured.
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    with torch.no_grad():
        for window in windows:
            tensors = window_tensors(window, device)
            if tensors.trained_tokens:
                hidden = forward_hidden(model, tensors)[tensors.predictors]
                losses, right = token_losses(hidden, head_of(model), tensors.targets)
                loss += losses.double().sum()
                hits += right.sum()
                count += tensors.trained_tokens
            if limit is not None and count >= limit:
                break
    model.train(was_training)
    if not count:
        return None
    return Validation(loss.item() / count, hits.item() / count, count)
