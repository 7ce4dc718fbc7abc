"""Adds the adapter to the 16-bit base: the base's own precision, with an adapter trained on NF4."""

from tasks.merging.strategies.protocol import MergeStrategy

BASE16 = MergeStrategy(
    name="base16",
    description="added to the 16-bit base",
    uses_quantized_base=False,
    base_weight=lambda weight, dequantized: weight,
)
