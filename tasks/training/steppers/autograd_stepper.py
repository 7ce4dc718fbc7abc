"""One optimizer step's forward and backward by transformers, peft and autograd: the reference.

It serves every model that transformers and peft know, on any device; the fast path is held against
it. Windows run one after another and add up in the gradient.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tasks.core.models.chunked_loss import token_losses
from tasks.core.models.packed_attention import PACKED
from tasks.core.models.packed_forward import WindowTensors, base_model, forward_hidden, head_of
from tasks.training.steppers.step_size import less


class PlainStepper:
    """Runs windows through a PEFT model.

    Args:
        model: With LoRA in it; put into training mode here.
        kept_layers: Decoder layers that keep their activations, counted from the last; the others
            compute them again in the backward pass.
        window_tokens: Windows are run in parts of at most so many tokens.
        offload: What the backward pass needs waits in the CPU's memory.
        lockstep: Other processes wait for this one in every layer: no window is skipped or cut.
    """

    name = "plain"

    def __init__(
        self,
        model: Any,
        kept_layers: int,
        window_tokens: int = 2**31,
        offload: bool = False,
        lockstep: bool = False,
    ) -> None:
        self._model = model.train()
        self._head = head_of(model)
        self._offload, self._lockstep = offload, lockstep
        self.layers = len(_decoder_layers(model))
        self.resize(kept_layers, window_tokens)
        packed = base_model(model).config._attn_implementation == PACKED
        self.attention = "varlen" if packed else "sdpa"

    def resize(self, kept_layers: int, window_tokens: int) -> None:
        """Keep so many layers' activations from the next window on."""
        self.kept_layers = set_checkpointing(self._model, kept_layers)
        self.window_tokens = window_tokens

    def shrink(self) -> bool:
        """Take less memory from now on; False where there is nothing left to give."""
        smaller = None if self._lockstep else less(self.kept_layers, self.window_tokens)
        if smaller is not None:
            self.resize(*smaller)
        return smaller is not None

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
            if not window.trained_tokens and not self._lockstep:
                continue
            torch.manual_seed(window_seed(seed, place))
            with self._saved():
                hidden = forward_hidden(self._model, window)[window.predictors]
                losses, _ = token_losses(hidden, self._head, window.targets)
            loss = losses.sum()
            (loss / trained_tokens).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _saved(self) -> AbstractContextManager[object]:
        """Where tensors wait for the backward pass."""
        if not self._offload:
            return nullcontext()
        frozen = {p.untyped_storage().data_ptr() for p in self._model.parameters()}
        return torch.autograd.graph.saved_tensors_hooks(partial(_to_host, frozen), _to_device)

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


def _decoder_layers(model: Any) -> list[Any]:
    return [m for m in base_model(model).modules() if isinstance(m, GradientCheckpointingLayer)]


def _to_host(frozen: set[int], saved: Tensor) -> tuple[torch.device, Tensor]:
    """A copy in the CPU's memory; weights are on the device anyway and stay there."""
    if saved.device.type == "cpu" or saved.untyped_storage().data_ptr() in frozen:
        return saved.device, saved
    host = torch.empty(saved.shape, dtype=saved.dtype, pin_memory=True)
    return saved.device, host.copy_(saved, non_blocking=True)


def _to_device(packed: tuple[torch.device, Tensor]) -> Tensor:
    device, saved = packed
    return saved.to(device, non_blocking=True)


def set_checkpointing(model: Any, kept_layers: int) -> int:
    """Checkpoint all decoder layers but the last `kept_layers`; returns how many keep activations.

    The last ones are the best to keep: their activations are freed first in the backward pass.
    """
    layers = _decoder_layers(model)
    kept = min(kept_layers, len(layers))
    for place, layer in enumerate(layers):
        layer.gradient_checkpointing = place < len(layers) - kept
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return kept
