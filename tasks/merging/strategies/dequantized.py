"""Adds the adapter to the dequantized 4-bit base: exactly the weights that it was trained on."""

from collections.abc import Callable

from torch import Tensor

from tasks.merging.strategies.protocol import MergeStrategy


def _dequantized(weight: Tensor, dequantized: Callable[[], Tensor | None]) -> Tensor:
    values = dequantized()
    return weight if values is None else values


DEQUANTIZED = MergeStrategy(
    name="dequantized",
    description="added to the dequantized 4-bit base, on which it was trained",
    uses_quantized_base=True,
    base_weight=_dequantized,
)
