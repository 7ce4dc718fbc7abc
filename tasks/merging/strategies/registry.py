"""All merge strategies, and those that a setting selects."""

from tasks.merging.strategies.base16 import BASE16
from tasks.merging.strategies.dequantized import DEQUANTIZED
from tasks.merging.strategies.protocol import MergeStrategy

STRATEGIES = (BASE16, DEQUANTIZED)


def selected(setting: str, quantization: str) -> tuple[MergeStrategy, ...]:
    """The strategies to try; those that use a quantized base only where there is one."""
    return tuple(
        strategy
        for strategy in STRATEGIES
        if setting in ("best", strategy.name)
        and not (strategy.uses_quantized_base and quantization == "none")
    )
