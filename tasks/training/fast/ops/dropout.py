"""Dropout of LoRA's inputs by a hash, and the seeds of its masks."""

from dataclasses import dataclass

import torch
from torch import Tensor

# odd multipliers of murmur3's finalizer, and of Fibonacci hashing (2^32 / golden ratio)
_GOLDEN, _MIX1, _MIX2, _BITS32 = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0xFFFFFFFF


@dataclass(frozen=True)
class Dropout:
    """Dropout of a LoRA input by a hash of index and seed, so that no mask has to be stored.

    All members that share an input use one 32-bit hash; each takes its own `bits` bits.

    Attributes:
        seed: 32 bits; differs by step, window, layer and input.
        bits: Bits per member: 16, or 10 for three members.
        threshold: A member's value is dropped if its bits are below it.
        seeds: int32 tensor of a window's seeds, from which GPU kernels read the seed, so that a
            recorded launch can run with other seeds; None: they use `seed`.
        place: Index of the seed in `seeds`.
    """

    seed: int
    bits: int
    threshold: int
    seeds: Tensor | None = None
    place: int = 0

    @property
    def keep_scale(self) -> float:
        """Factor of kept values that preserves the mean, for the rate that `bits` can express."""
        return 1.0 / (1.0 - self.threshold / (1 << self.bits))


NO_DROPOUT = Dropout(0, 10, 0)


def make_dropout(
    rate: float, members: int, seed: int, seeds: Tensor | None = None, place: int = 0
) -> Dropout:
    """Dropout at the rate nearest to `rate` that 32 bits for all members can express."""
    bits = min(16, 32 // members)
    threshold = round(rate * 2**bits)
    return Dropout(seed & _BITS32, bits, threshold, seeds, place) if rate else NO_DROPOUT


def mix(*parts: int) -> int:
    """A 32-bit seed from several integers, each of which affects all bits."""
    value = 0x243F6A88
    for part in parts:
        value = (value ^ (part & _BITS32) ^ (part >> 32 & _BITS32)) * _GOLDEN & _BITS32
        value ^= value >> 16
        value = value * _MIX1 & _BITS32
        value ^= value >> 13
    return value


def hash_bits(rows: int, columns: int, seed: int, device: torch.device) -> Tensor:
    """32 hash bits per value, int32[rows, columns]: murmur3's finalizer over the value's index.

    PyTorch has few operations on unsigned integers, so this computes with int32: products wrap
    alike, and the ones that a right shift of a negative number brings in are masked off.
    """
    h = torch.arange(rows * columns, dtype=torch.int32, device=device)
    h.mul_(signed(_GOLDEN)).add_(signed(seed))
    for shift, factor in ((16, _MIX1), (13, _MIX2)):
        h.bitwise_xor_((h >> shift).bitwise_and_(2 ** (32 - shift) - 1)).mul_(signed(factor))
    h.bitwise_xor_((h >> 16).bitwise_and_(0xFFFF))
    return h.view(rows, columns)


def signed(bits: int) -> int:
    """An unsigned 32-bit integer reinterpreted as int32."""
    return bits - 2**32 if bits >= 2**31 else bits
