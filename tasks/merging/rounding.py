"""Stochastic rounding of merged weights to bfloat16.

A base's weights are bfloat16 numbers, and most updates of a short training are smaller than half of
the distance to the next one: rounding to the nearest number would take them back. Rounding up or
down at random, in proportion to the distance, keeps them on average over the terms of a product.
"""

import hashlib

import torch
from torch import Tensor

_LOW_BITS = 16  # of a float32, which bfloat16 lacks


def generator_of(name: str) -> torch.Generator:
    """The random numbers of a tensor: its name seeds them, so that the same merge gives the same
    bytes, in whatever order and blocks it is computed."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
    return torch.Generator().manual_seed(seed)


def round_at_random(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A weight in bfloat16, rounded stochastically; what bfloat16 can hold is unchanged.

    Args:
        weight: float32, on the CPU; a tensor, or consecutive parts of it in several calls.
        generator: Of the tensor.
    """
    draw = torch.randint(1 << _LOW_BITS, weight.shape, generator=generator, dtype=torch.int32)
    bits = draw.add_(weight.contiguous().view(torch.int32)).bitwise_and_(-1 << _LOW_BITS)
    return bits.view(torch.float32).bfloat16()
