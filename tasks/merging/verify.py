"""Loss and next tokens of a model on held-out samples, to tell whether a merge kept its word."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.core.models.chunked_loss import token_losses
from tasks.core.models.loading import forward_hidden, head_of, window_tensors
from tasks.core.models.packed_dataset import Window
from tasks.core.tracking import track

CHUNK = 256  # positions whose logits exist at one time


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
class Verdict:
    """One way of merging against base + adapter.

    Attributes:
        strategy: "base16" or "dequantized".
        loss: Of the merged model.
        unmerged_loss: Of the same base with the adapter beside it.
        agreement: Share of positions at which those two have the same likeliest next token.
        problem: Why it may not be used; "" if it may.
    """

    strategy: str
    loss: float
    unmerged_loss: float
    agreement: float
    problem: str = ""


def sample_rows(rows: Iterable[Window], max_tokens: int) -> list[Window]:
    """Samples from the start of the split until they hold `max_tokens`; at least one."""
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
    """Mean loss and likeliest next tokens over the sample, each row alone."""
    head = head_of(model)
    total, picked = 0.0, []
    for row in track(sample, label):
        window = window_tensors(row, next(model.parameters()).device)
        hidden = forward_hidden(model, window)[window.predictors]
        losses, _ = token_losses(hidden, head, window.targets)
        total += float(losses.double().sum())
        picked += [head(part).argmax(-1).cpu().numpy() for part in torch.split(hidden, CHUNK)]
    tokens = np.concatenate(picked)
    return Measured(total / len(tokens), tokens)


def judge(
    strategy: str,
    merged: Measured,
    unmerged: Measured,
    evaluated_loss: float,
    *,
    tolerance_percent: float,
    min_agreement: float,
) -> Verdict:
    """Whether a merged model does what base + adapter did.

    Args:
        strategy: How it was merged.
        merged: The merged model.
        unmerged: The same base, in the same precision, with the adapter beside it.
        evaluated_loss: Of the base as the adapter was trained and evaluated on; the merged model
            may be better than that, not worse.
        tolerance_percent: How far losses may lie apart.
        min_agreement: Least share of same next tokens.
    """
    agreement = float((merged.tokens == unmerged.tokens).mean())
    slack = tolerance_percent / 100
    problem = ""
    if not abs(merged.loss - unmerged.loss) <= slack * unmerged.loss:  # NaN fails too
        problem = (
            f"loss {merged.loss:.4f} against {unmerged.loss:.4f} unmerged, "
            f"allowed are {tolerance_percent:g} % between them"
        )
    elif agreement < min_agreement:
        problem = (
            f"the same next token as unmerged at {100 * agreement:.1f} % of positions, "
            f"wanted are {100 * min_agreement:.1f} %"
        )
    elif merged.loss > evaluated_loss * (1 + slack):
        problem = (
            f"loss {merged.loss:.4f} against {evaluated_loss:.4f} of the model that was evaluated, "
            f"allowed are {tolerance_percent:g} % more"
        )
    return Verdict(strategy, merged.loss, unmerged.loss, agreement, problem)


def best(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The usable way with the lowest loss; None if none is usable."""
    usable = [verdict for verdict in verdicts if not verdict.problem]
    return min(usable, key=lambda verdict: verdict.loss) if usable else None
