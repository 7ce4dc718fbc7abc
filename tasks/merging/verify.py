"""Verifies a merge: whether the merged model reproduces base + adapter on held-out samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.core.models.chunked_loss import token_losses
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import forward_hidden, loss_head, window_tensors
from tasks.core.tracking import track

CHUNK = 256  # positions whose logits exist at the same time


@dataclass(frozen=True)
class Measured:
    """A model on the sample.

    Attributes:
        loss: Mean over trained tokens, in nats.
        tokens: The likeliest next token at each trained position; int64[m].
    """

    loss: float
    tokens: NDArray[np.int64]


@dataclass(frozen=True)
class MergeCheck:
    """One merged model compared with base + adapter.

    Attributes:
        strategy: Name of the merge strategy.
        loss: Of the merged model.
        unmerged_loss: Of the same base with the adapter beside it.
        agreement: Share of positions at which both have the same likeliest next token.
        problem: Why the merged model is unusable; "" if it is usable.
    """

    strategy: str
    loss: float
    unmerged_loss: float
    agreement: float
    problem: str = ""


def sample_rows(rows: Iterable[Window], max_tokens: int) -> list[Window]:
    """Samples from the start of the split with at most `max_tokens` in total; at least one."""
    taken: list[Window] = []
    held = 0
    for row in rows:
        if not row.trained_tokens:
            continue
        if taken and held + len(row.input_ids) > max_tokens:
            break
        taken.append(row)
        held += len(row.input_ids)
    return taken


@torch.inference_mode()
def measure(model: Any, sample: Sequence[Window], label: str) -> Measured:
    """Mean loss and likeliest next tokens over the sample, one row at a time."""
    head = loss_head(model)
    total, picked = 0.0, []
    for row in track(sample, label):
        window = window_tensors(row, next(model.parameters()).device)
        hidden = forward_hidden(model, window)[window.predictors]
        losses, _ = token_losses(hidden, head, window.targets)
        total += float(losses.double().sum())
        picked += [head(part).argmax(-1).cpu().numpy() for part in torch.split(hidden, CHUNK)]
    tokens = np.concatenate(picked)
    return Measured(total / len(tokens), tokens)


def compare(
    strategy: str,
    merged: Measured,
    unmerged: Measured,
    evaluated_loss: float,
    *,
    tolerance_percent: float,
    min_agreement: float,
) -> MergeCheck:
    """Whether a merged model reproduces base + adapter.

    Args:
        strategy: Name of the merge strategy.
        merged: The merged model.
        unmerged: The same base, in the same precision, with the adapter beside it.
        evaluated_loss: Of the base on which the adapter was trained and evaluated; the merged model
            may be better than that, not worse.
        tolerance_percent: Most by which the merged model's loss may be larger. It may be smaller:
            in bfloat16, an adapter beside its base loses what is small next to the base's output.
        min_agreement: Smallest share of equal next tokens; not required where the merged model's
            loss is smaller by more than the tolerance.
    """
    agreement = float((merged.tokens == unmerged.tokens).mean())
    slack = tolerance_percent / 100
    problem = ""
    if not merged.loss <= unmerged.loss * (1 + slack):  # NaN fails too
        problem = (
            f"loss {merged.loss:.4f} against {unmerged.loss:.4f} unmerged, "
            f"at most {tolerance_percent:g} % more is allowed"
        )
    elif agreement < min_agreement and merged.loss > unmerged.loss * (1 - slack):
        problem = (
            f"the same next token as unmerged at {100 * agreement:.1f} % of positions, "
            f"at least {100 * min_agreement:.1f} % are required"
        )
    elif merged.loss > evaluated_loss * (1 + slack):
        problem = (
            f"loss {merged.loss:.4f} against {evaluated_loss:.4f} of the model that was evaluated, "
            f"at most {tolerance_percent:g} % more is allowed"
        )
    return MergeCheck(strategy, merged.loss, unmerged.loss, agreement, problem)


def best(checks: Sequence[MergeCheck]) -> MergeCheck | None:
    """The usable merged model with the lowest loss; None if none is usable."""
    usable = [check for check in checks if not check.problem]
    return min(usable, key=lambda check: check.loss) if usable else None
