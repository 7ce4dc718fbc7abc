"""Helpers of kernels that round to 8 bit: nearest integers, and the rotation of `torch_weights`."""

# ruff: noqa: N803 - capitals are compile-time constants
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def nearest(values):
    """float32 rounded to the nearest integer, for magnitudes below 2^22."""
    shift = 12582912.0  # 1.5 * 2^23: in this range float32 has no fraction
    return (values + shift) - shift


@triton.jit
def hadamard(KIND: tl.constexpr):
    """The symmetric matrix / 8 [64, 64]; an entry is negative if i & j has odd parity."""
    i = tl.arange(0, 64)
    bits = i[:, None] & i[None, :]
    bits ^= bits >> 4
    bits ^= bits >> 2
    bits ^= bits >> 1
    return ((1 - 2 * (bits & 1)).to(tl.float32) * 0.125).to(KIND)
