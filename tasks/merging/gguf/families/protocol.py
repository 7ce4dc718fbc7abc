"""A family of models in llama.cpp: architecture, hyper-parameters, and what differs in its tensors.

Names of tensors come from the package gguf. This table is apart from
`tasks/core/models/architectures` so that a change here reruns the merge and not the training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gguf import MODEL_ARCH
from numpy.typing import NDArray
from torch import Tensor

Rows = TypeVar("Rows", NDArray[Any], Tensor)


@dataclass(frozen=True)
class RowOrder:
    """Another order of a tensor's rows: (heads, parts, rows of a part), two axes exchanged.

    Attributes:
        heads: Field of the config.
        parts: Of each head.
        axes: The exchanged ones.
    """

    heads: str
    parts: int
    axes: tuple[int, int]

    def apply(self, rows: Rows, config: Any) -> Rows:
        """Rows in transformers' order -> in llama.cpp's."""
        return self._exchanged(rows, [int(getattr(config, self.heads)), self.parts, -1])

    def undo(self, rows: Rows, config: Any) -> Rows:
        """Rows in llama.cpp's order -> in transformers'."""
        shape = [int(getattr(config, self.heads)), self.parts, -1]
        first, second = self.axes
        shape[first], shape[second] = shape[second], shape[first]
        return self._exchanged(rows, shape)

    def _exchanged(self, rows: Rows, shape: list[int]) -> Rows:
        groups = rows.reshape(*shape, *rows.shape[1:])
        return groups.swapaxes(*self.axes).reshape(rows.shape)


def alternating(heads: str) -> RowOrder:
    """The halves of each head alternate: llama.cpp rotates neighboring rows of these families."""
    return RowOrder(heads, 2, (1, 2))


ROTATED = {
    "attn_q": alternating("num_attention_heads"),
    "attn_k": alternating("num_key_value_heads"),
}


@dataclass(frozen=True)
class GgufFamily:
    """One family.

    Attributes:
        model_type: In config.json.
        architecture: In llama.cpp.
        parameters: Hyper-parameters beyond those of every decoder: method of `GGUFWriter` -> field
            of the config.
        orders: Tensors whose rows have another order in llama.cpp, by their kind.
        norm_offset: Added to the weights of norms, which transformers adds when it applies them.
        window_period: llama.cpp applies the sliding window to all but every n-th layer; 0: to none.
        required: Values of the config's fields for which llama.cpp computes the same.
        unsupported: What else of a config llama.cpp computes differently; "" if nothing.
    """

    model_type: str
    architecture: MODEL_ARCH
    parameters: Mapping[str, str]
    orders: Mapping[str, RowOrder] = field(default_factory=dict)
    norm_offset: float = 0.0
    window_period: int = 0
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unsupported: Callable[[Any], str] = lambda config: ""
