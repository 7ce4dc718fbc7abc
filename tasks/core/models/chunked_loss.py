"""Chunked cross-entropy on trained tokens only: a tensor of all logits never exists.

In: hidden states and the head. Out: the loss of every trained token, and whether the likeliest
token was the target. With a vocabulary of 50,304 the logits of one 4,096-token window take 0.8 GiB
in 32 bit, and several times that with their gradient; a chunk of 512 tokens takes 0.1 GiB. The
backward pass recomputes each chunk's logits.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from tasks.core.models.packed_dataset import IGNORED
from tasks.core.models.traits.own_head import OwnHead

CHUNK_TOKENS = 512


def targets_of(
    labels: NDArray[np.int64], cu_seqlens: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions with a loss and their targets: position i predicts token i + 1 of its sample.

    Args:
        labels: int64[n], unshifted, `IGNORED` where no loss is taken.
        cu_seqlens: int32[k + 1], the start of each sample, then n.

    Returns:
        Predicting positions int64[m] and the tokens to predict int64[m]. A sample's first token is
        never a target, whatever its label: the token before it belongs to another sample.
    """
    trained = labels != IGNORED
    trained[cu_seqlens[:-1]] = False
    places = np.flatnonzero(trained)
    return places - 1, labels[places]


class _TokenLosses(torch.autograd.Function):
    """Losses and hits per token; gradients for the hidden states only, as the head is frozen."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        hits = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            logits = linear(hidden[part], weight, bias).float()
            losses[part] = cross_entropy(logits, targets[part], reduction="none")
            hits[part] = logits.argmax(-1) == targets[part]
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.chunk = chunk
        ctx.mark_non_differentiable(hits)
        return losses, hits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        hidden, weight, bias, targets = ctx.saved_tensors
        result = torch.empty_like(hidden)
        for start in range(0, len(targets), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits = linear(hidden[part], weight, bias).float()
            slope = torch.softmax(logits, dim=-1)  # d loss / d logits = softmax - one-hot target
            slope[torch.arange(len(slope), device=slope.device), targets[part]] -= 1
            slope *= gradients[0][part, None]
            torch.mm(slope.to(weight.dtype), weight, out=result[part])
        return result, None, None, None, None


class _OwnTokenLosses(torch.autograd.Function):
    """The same for a head of any form: the backward pass differentiates each chunk again."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Any, targets: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        losses, hits = [], []
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            logits = head(hidden[part]).float()
            losses.append(cross_entropy(logits, targets[part], reduction="none"))
            hits.append(logits.argmax(-1) == targets[part])
        ctx.save_for_backward(hidden, targets)
        ctx.head, ctx.chunk = head, chunk
        joined = torch.cat(hits)
        ctx.mark_non_differentiable(joined)
        return torch.cat(losses), joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        hidden, targets = ctx.saved_tensors
        result = torch.empty_like(hidden)
        for start in range(0, len(targets), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            with torch.enable_grad():
                inputs = hidden[part].detach().requires_grad_()
                losses = cross_entropy(ctx.head(inputs).float(), targets[part], reduction="none")
            (result[part],) = torch.autograd.grad(losses, inputs, gradients[0][part])
        return result, None, None, None


def token_losses(
    hidden: Tensor, head: Any, targets: Tensor, chunk_tokens: int = CHUNK_TOKENS
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each trained token and whether the likeliest token is the target.

    Args:
        hidden: [m, hidden], the hidden states at the predicting positions
            (`hidden[window.predictors]`).
        head: Frozen: an output layer with weight [vocabulary, hidden], with or without a bias; or
            an `own_head.OwnHead`, which scales or caps its logits.
        targets: int64[m].
        chunk_tokens: Tokens whose logits exist at the same time.

    Returns:
        float32[m] losses, differentiable for `hidden`, and bool[m] hits.
    """
    if isinstance(head, OwnHead) and len(targets):
        return _OwnTokenLosses.apply(hidden, head, targets, chunk_tokens)  # type: ignore[no-any-return,no-untyped-call]
    bias = getattr(head, "bias", None)
    losses, hits = _TokenLosses.apply(hidden, head.weight, bias, targets, chunk_tokens)  # type: ignore[no-untyped-call]
    return losses, hits
