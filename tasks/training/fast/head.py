"""Norm, head and loss, for the tokens that predict a trained one."""

from typing import Any

import torch
from torch import Tensor

from tasks.core.models.packed_forward import WindowTensors
from tasks.training.fast.layer.state import chunks
from tasks.training.fast.model.weights import LastStep


def head_losses(
    ops: Any,
    last: LastStep,
    buffer: Tensor,
    window: WindowTensors,
    x: Tensor,
    grad: Tensor | None = None,
    scale: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Loss of each trained token; and hits without `grad`, or the gradient of `x` in `grad`.

    In chunks: all logits of a window of 16,384 tokens at 50,304 vocabulary entries would take 1.5
    GiB.

    Args:
        ops: The operations.
        last: Norm and head.
        buffer: For logits, [tokens of a chunk, vocabulary].
        window: Tells which tokens predict a trained one.
        x: The residual stream, [tokens, hidden].
        grad: Likewise; written for predicting tokens.
        scale: Of the gradient.
    """
    count, size = window.trained_tokens, buffer.shape[0]
    losses = torch.empty(count, dtype=torch.float32, device=x.device)
    hits = torch.empty(count, dtype=torch.bool, device=x.device)
    for part in chunks(count, size):
        predictors, targets = window.predictors[part], window.targets[part]
        stream = x.index_select(0, predictors)
        hidden = torch.empty_like(stream)
        ops.norm(stream, last.norm, hidden)
        logits = buffer[: len(stream)]
        torch.mm(hidden, last.weight.t(), out=logits)
        if last.bias is not None:
            logits.add_(last.bias)
        if grad is None:
            hits[part] = logits.argmax(-1) == targets
        # logits become gradients
        ops.cross_entropy(logits, targets, scale, losses[part], last.cap)
        if grad is not None:
            torch.mm(logits, last.weight, out=hidden)
            if window.weights is not None:
                hidden *= window.weights[part, None]
            back = torch.empty_like(stream)
            ops.norm_backward(stream, last.norm, hidden, back, add=False)
            grad.index_copy_(0, predictors, back)  # each token predicts at most one
    return losses, hits
