"""One optimizer step's forward and backward by transformers, peft and autograd: the reference.

It serves every model that transformers and peft know, on any device; the fast path is held against
it. Windows run one after another and add up in the gradient.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tasks.core.attention import PACKED
from tasks.core.losses import token_losses
from tasks.core.modeling import WindowTensors, base_model, forward_hidden, head_of


class PlainStepper:
    """Runs windows through a PEFT model.

    Args:
        model: With LoRA in it; put into training mode here.
        kept_layers: Decoder layers that keep their activations, counted from the last; the others
            compute them again in the backward pass.
    """

    name = "plain"

    def __init__(self, model: Any, kept_layers: int) -> None:
        self._model = model.train()
        self._head = head_of(model)
        self.kept_layers = set_checkpointing(model, kept_layers)
        packed = base_model(model).config._attn_implementation == PACKED
        self.attention = "varlen" if packed else "sdpa"

    def run(self, windows: Sequence[WindowTensors], trained_tokens: int, seed: int) -> Tensor:
        """Add the gradients of the mean loss over `trained_tokens` to the parameters' gradients.

        Args:
            windows: All windows of one optimizer step.
            trained_tokens: In all of them together, so that every token weighs the same however
                the step is cut.
            seed: Of the dropout; a window's masks follow from it and its place in the step.

        Returns:
            The summed loss, float32[] on the device, unread.
        """
        total = torch.zeros((), dtype=torch.float32, device=self._head.weight.device)
        for place, window in enumerate(windows):
            if not window.trained_tokens:
                continue
            torch.manual_seed(window_seed(seed, place))
            hidden = forward_hidden(self._model, window)[window.predictors]
            losses, _ = token_losses(hidden, self._head, window.targets)
            loss = losses.sum()
            (loss / trained_tokens).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    @torch.no_grad()
    def measure(self, window: WindowTensors) -> tuple[Tensor, Tensor]:
        """Loss and hit of each trained token, without dropout: float32[m], bool[m]."""
        self._model.eval()
        hidden = forward_hidden(self._model, window)[window.predictors]
        self._model.train()
        return token_losses(hidden, self._head, window.targets)


def window_seed(seed: int, place: int) -> int:
    """Seed of the window at `place` in a step; distinct for neighbouring steps and places."""
    return (seed * 1_000_003 + place * 7_919 + 17) % 2**63


def set_checkpointing(model: Any, kept_layers: int) -> int:
    """Checkpoint all decoder layers but the last `kept_layers`; returns how many keep activations.

    The last ones are the best to keep: their activations are freed first in the backward pass.
    """
    layers = [m for m in base_model(model).modules() if isinstance(m, GradientCheckpointingLayer)]
    kept = min(kept_layers, len(layers))
    for place, layer in enumerate(layers):
        layer.gradient_checkpointing = place < len(layers) - kept
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return kept
