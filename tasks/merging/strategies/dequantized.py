"""Adds the adapter to the dequantized 4-bit base: exactly the weights that it was trained on."""

from typing import Any

from bitsandbytes.functional import dequantize_4bit
from torch import Tensor

from tasks.merging.strategies.protocol import MergeStrategy


def _dequantized(weight: Tensor, layer: Any) -> Tensor:
    if layer is None:
        return weight
    values: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return values.float().cpu()


DEQUANTIZED = MergeStrategy(
    name="dequantized",
    description="added to the dequantized 4-bit base, on which it was trained",
    uses_quantized_base=True,
    base_weight=_dequantized,
)
