"""The reference stepper: forward and backward by transformers, PEFT and autograd.

Supports every model that transformers and PEFT support, on any device; tests compare the fast path
with it. Windows run one after another; their gradients add up.
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
from tasks.core.models.packed_forward import WindowTensors, base_model, forward_hidden, loss_head
from tasks.training.steppers.stepper import window_seed


class AutogradStepper:
    """Runs windows through a PEFT model; see `stepper.Stepper`.

    Args:
        model: With LoRA; switched to training mode.
        kept_layers: Decoder layers that keep their activations, counted from the last.
        window_tokens: Longest window, in tokens.
        offload: Saved activations wait in the CPU's memory for the backward pass.
        lockstep: The base is sharded: other processes wait for this one in every layer, so no
            window is skipped or cut.
    """

    name = "plain"  # stored in training.json and in memory probes

    def __init__(
        self,
        model: Any,
        kept_layers: int,
        window_tokens: int = 2**31,
        offload: bool = False,
        lockstep: bool = False,
    ) -> None:
        self._model = model.train()
        self._head = loss_head(model)
        self._offload, self.lockstep = offload, lockstep
        self.layers = len(_decoder_layers(model))
        self.resize(kept_layers, window_tokens)
        packed = base_model(model).config._attn_implementation == PACKED
        self.attention = "varlen" if packed else "sdpa"

    def resize(self, kept_layers: int, window_tokens: int) -> None:
        """Set both sizes from the next window on."""
        self.kept_layers = set_checkpointing(self._model, kept_layers)
        self.window_tokens = window_tokens

    def run(self, windows: Sequence[WindowTensors], divisor: float, seed: int) -> Tensor:
        """Add the gradients of the loss over `divisor`; returns the summed loss."""
        total = torch.zeros((), dtype=torch.float32, device=self._head.weight.device)
        for index, window in enumerate(windows):
            if not window.trained_tokens and not self.lockstep:
                continue
            torch.manual_seed(window_seed(seed, index))
            with self._saved():
                hidden = forward_hidden(self._model, window)[window.predictors]
                losses, _ = token_losses(hidden, self._head, window.targets)
            loss = losses.sum() if window.weights is None else losses @ window.weights
            (loss / divisor).backward()  # type: ignore[no-untyped-call]  # no types
            total += loss.detach()
        return total

    def _saved(self) -> AbstractContextManager[object]:
        """Moves saved tensors to the CPU until the backward pass, with `offload`."""
        if not self._offload:
            return nullcontext()
        # the tensors that autograd saves include weights, which are on the device anyway
        frozen = {p.untyped_storage().data_ptr() for p in self._model.parameters()}
        return torch.autograd.graph.saved_tensors_hooks(partial(_to_host, frozen), _to_device)

    @torch.no_grad()
    def measure(self, window: WindowTensors) -> tuple[Tensor, Tensor]:
        """Loss and hit of each trained token, without dropout: float32[m], bool[m]."""
        self._model.eval()
        hidden = forward_hidden(self._model, window)[window.predictors]
        self._model.train()
        return token_losses(hidden, self._head, window.targets)


def _decoder_layers(model: Any) -> list[Any]:
    return [m for m in base_model(model).modules() if isinstance(m, GradientCheckpointingLayer)]


def _to_host(frozen: set[int], saved: Tensor) -> tuple[torch.device, Tensor]:
    """Copy a saved tensor to pinned memory, where the copy overlaps with the GPU's work."""
    if saved.device.type == "cpu" or saved.untyped_storage().data_ptr() in frozen:
        return saved.device, saved
    host = torch.empty(saved.shape, dtype=saved.dtype, pin_memory=True)
    return saved.device, host.copy_(saved, non_blocking=True)


def _to_device(packed: tuple[torch.device, Tensor]) -> Tensor:
    device, saved = packed
    return saved.to(device, non_blocking=True)


def set_checkpointing(model: Any, kept_layers: int) -> int:
    """Checkpoint all decoder layers but the last `kept_layers`; returns how many keep activations.

    The last layers' activations are freed first in the backward pass, before the recomputation of
    earlier layers needs memory.
    """
    layers = _decoder_layers(model)
    kept = min(kept_layers, len(layers))
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = index < len(layers) - kept
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return kept
