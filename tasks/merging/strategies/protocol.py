"""A merge strategy: what weight the adapter is added to."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MergeStrategy:
    """One strategy.

    Attributes:
        name: The value of `merge.strategy` that selects it.
        description: For the model card; completes "The adapter was ...".
        uses_quantized_base: Whether it needs a base that was quantized for the training. The merged
            model is compared with that base and the adapter beside it, else with the 16-bit base
            and the adapter.
        base_weight: (weight in the base's safetensors, what it was in 4 bit or None) -> the weight
            that the adapter is added to. The second is a function that dequantizes, and returns
            None for a weight that was not quantized.
    """

    name: str
    description: str
    uses_quantized_base: bool
    base_weight: Callable[[Tensor, Callable[[], Tensor | None]], Tensor]
