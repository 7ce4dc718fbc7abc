"""Sampling: logits -> the next token of each row, greedy or drawn by temperature and top-p.

Imports no torch, so that the command line can build `Sampling` from its options at once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are picked.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: Share of the probability mass to draw from (nucleus sampling).
        seed: Of the draws; each prompt has its own, independent of the others in the batch.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()


class Sampler:
    """Picks the next token of each row."""

    def __init__(self, sampling: Sampling, names: Sequence[str] | None = None) -> None:
        self._sampling, self._names = sampling, names
        self._draws: dict[int, random.Random] = {}

    def __call__(self, logits: "Tensor", indexes: Sequence[int | None]) -> list[int]:
        """Tokens for logits [rows, vocabulary]; rows without an index get any token."""
        if self._sampling.temperature == 0:
            picked: list[int] = logits.argmax(-1).tolist()
            return picked
        shares = (logits.float() / self._sampling.temperature).softmax(-1)
        if self._sampling.top_p < 1:
            ranked, order = shares.sort(descending=True, stable=True)
            # mass before a token, not including it: the likeliest always stays
            ranked[ranked.cumsum(-1) - ranked >= self._sampling.top_p] = 0
            shares = shares.new_zeros(shares.shape).scatter(-1, order, ranked)
        # summed in the order of the vocabulary: an order by share would depend on the last bits
        sums = shares.double().cumsum(-1)
        drawn = [0.0 if index is None else self._draw(index) for index in indexes]
        at = sums.new_tensor(drawn)[:, None] * sums[:, -1:]
        found: list[int] = (sums <= at).sum(-1).clamp(max=sums.shape[-1] - 1).tolist()
        return found

    def _draw(self, index: int) -> float:
        if index not in self._draws:
            name = self._names[index] if self._names else index
            self._draws[index] = random.Random(f"{self._sampling.seed} {name}")
        return self._draws[index].random()
