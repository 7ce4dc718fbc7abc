"""The packed forward pass: a window's samples through a model, isolated from each other.

Training, evaluation and merging use this one implementation, so that their losses are comparable.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.core.models.chunked_loss import targets_of
from tasks.core.models.packed_attention import PACKED, cu_seqlens_mask
from tasks.core.models.packed_dataset import Window
from tasks.core.models.traits.own_head import OwnHead


@dataclass(frozen=True)
class WindowTensors:
    """One packed window on the model's device; n tokens, k samples, m of the tokens trained.

    Attributes:
        input_ids: int64[1, n].
        position_ids: int64[1, n], starting at 0 in every sample.
        cu_seqlens: int32[k + 1], the start of each sample, then n.
        max_tokens: Length of the longest sample.
        predictors: int64[m], the positions whose next token is trained.
        targets: int64[m], that next token.
        weights: float32[m], of each one's loss; None: 1.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_tokens: int
    predictors: Tensor
    targets: Tensor
    weights: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens in the window."""
        return self.input_ids.shape[1]

    @property
    def trained_tokens(self) -> int:
        """Tokens with a loss."""
        return self.targets.shape[0]


def base_model(model: Any) -> Any:
    """The transformers model inside, with or without LoRA layers in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_of(model: Any) -> Any:
    """The layer that maps hidden states to logits."""
    return base_model(model).get_output_embeddings()


def decoder_of(model: Any) -> Any:
    """The part of a transformers model that maps token ids to hidden states."""
    base = base_model(model)
    decoder = base.get_decoder()
    return base.model if decoder is base else decoder  # Llama 4 names a part that it has not


def loss_head(model: Any) -> Any:
    """What `token_losses` takes: the head's layer, or the model's own head if it does more."""
    base = base_model(model)
    if getattr(base, "linear_head", True):
        return head_of(model)
    return OwnHead(base, decoder_of(base))


def window_tensors(
    window: Window, device: torch.device, row_weight: float | None = None
) -> WindowTensors:
    """Copy a window to a device; to a GPU asynchronously, from pinned memory.

    Args:
        window: The window.
        device: Of the model.
        row_weight: The weights of a sample's losses add up to this; None: each is 1.
    """
    predictors, targets = targets_of(window.labels, window.cu_seqlens)
    lengths = window.cu_seqlens[1:] - window.cu_seqlens[:-1]

    def move(array: Any) -> Tensor:
        tensor = torch.from_numpy(array)
        return (
            tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
        )

    return WindowTensors(
        input_ids=move(window.input_ids)[None],
        position_ids=move(window.position_ids)[None],
        cu_seqlens=move(window.cu_seqlens),
        max_tokens=int(lengths.max()),
        predictors=move(predictors),
        targets=move(targets),
        weights=None
        if row_weight is None
        else move(_token_weights(predictors, window.cu_seqlens, row_weight)),
    )


def _token_weights(predictors: Any, cu_seqlens: Any, row_weight: float) -> Any:
    """Weight of each predictor's loss: float32[m]; all samples weigh the same."""
    sample = np.searchsorted(cu_seqlens, predictors, "right") - 1
    return (row_weight / np.bincount(sample)[sample]).astype(np.float32)


def forward_hidden(model: Any, window: WindowTensors) -> Tensor:
    """Last hidden states [n, hidden] of a window.

    With varlen attention the kernel gets the sample bounds. Otherwise transformers derives a block
    mask from the restarting positions, which it does only if no attention mask is passed. A model
    that mixes tokens by more than masked attention runs each sample alone.
    """
    decoder = decoder_of(model)
    if getattr(base_model(model), "isolation", "") == "rows":
        bounds = pairwise(window.cu_seqlens.tolist())
        parts = [window.input_ids[:, start:stop] for start, stop in bounds]
        alone = [decoder(input_ids=part, use_cache=False).last_hidden_state[0] for part in parts]
        return torch.cat(alone)
    packed = decoder.config._attn_implementation == PACKED
    output = decoder(
        input_ids=window.input_ids,
        position_ids=window.position_ids,
        attention_mask=cu_seqlens_mask(window.cu_seqlens, window.max_tokens) if packed else None,
        use_cache=False,
    )
    return output.last_hidden_state[0]  # type: ignore[no-any-return]  # transformers: Any
