"""Fused parameters and the tensors of the checkpoint that they are made of.

Most checkpoints store one matrix per expert and projection, which transformers joins while it loads
them; others store the fused parameters. transformers' own conversion, reversed, splits a fused
parameter, so that a weight or its update can be added to a checkpoint tensor by tensor.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion


def parts_of(model: Any, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fused parameters by name -> the checkpoint's tensors by name.

    Args:
        model: A model of this type, with or without storage.
        values: Tensors of the parameters' shapes: weights or updates.
    """
    parts: dict[str, Tensor] = revert_weight_conversion(model, dict(values))
    return parts
