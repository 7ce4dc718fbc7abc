"""Triton kernels for RMSNorms of q's and k's heads together with their rotation.

Apart, they read and write q, k and v five times; together, once. For heads that are rotated as a
whole, feature i with i + HALF, and norms with one weight for all heads: Qwen3, Gemma 3.
"""

# ruff: noqa: N803 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _halves(place, ok, HALF: tl.constexpr):
    """Both halves of heads' features, in float32."""
    first = tl.load(place, mask=ok, other=0.0).to(tl.float32)
    return first, tl.load(place + HALF, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def _weights(q_weight, k_weight, is_q, at, fits, HALF: tl.constexpr):
    """Both halves of each head's weight."""
    q0, q1 = _halves(q_weight + at, fits, HALF)
    k0, k1 = _halves(k_weight + at, fits, HALF)
    return tl.where(is_q, q0, k0), tl.where(is_q, q1, k1)


@triton.jit
def norm_rope(
    x, q_weight, k_weight, cos, sin, out, x_stride, out_stride, eps,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """q and k normalized and rotated, v copied: TILE heads of one token per program."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
    at = tl.arange(0, BLOCK)[None, :]
    fits = at < HALF
    ok = fits & (head < QUERIES + 2 * KEYS)
    first, second = _halves(x + row * x_stride + head * (2 * HALF) + at, ok, HALF)
    w0, w1 = _weights(q_weight, k_weight, head < QUERIES, at, fits, HALF)
    c = tl.load(cos + row * HALF + at, mask=fits, other=0.0)
    s = tl.load(sin + row * HALF + at, mask=fits, other=0.0)
    square = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    rstd = 1.0 / tl.sqrt(square[:, None] / (2 * HALF) + eps)
    a = first * rstd * w0
    b = second * rstd * w1
    is_v = head >= QUERIES + KEYS
    to = out + row * out_stride + head * (2 * HALF) + at
    kind = out.dtype.element_ty
    tl.store(to, tl.where(is_v, first, a * c - b * s).to(kind), mask=ok)
    tl.store(to + HALF, tl.where(is_v, second, b * c + a * s).to(kind), mask=ok)


@triton.jit
def norm_rope_backward(
    x, q_weight, k_weight, cos, sin, grad, x_stride, grad_stride, eps,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of q and k before both, in place; see `rowwise.norm_backward`."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
    at = tl.arange(0, BLOCK)[None, :]
    fits = at < HALF
    ok = fits & (head < QUERIES + KEYS)
    first, second = _halves(x + row * x_stride + head * (2 * HALF) + at, ok, HALF)
    w0, w1 = _weights(q_weight, k_weight, head < QUERIES, at, fits, HALF)
    c = tl.load(cos + row * HALF + at, mask=fits, other=0.0)
    s = tl.load(sin + row * HALF + at, mask=fits, other=0.0)
    place = grad + row * grad_stride + head * (2 * HALF) + at
    g0, g1 = _halves(place, ok, HALF)
    slope0 = (g0 * c + g1 * s) * w0
    slope1 = (g1 * c - g0 * s) * w1
    square = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    rstd = 1.0 / tl.sqrt(square[:, None] / (2 * HALF) + eps)
    first *= rstd
    second *= rstd
    mean = (tl.sum(slope0 * first, 1) + tl.sum(slope1 * second, 1))[:, None] / (2 * HALF)
    kind = grad.dtype.element_ty
    tl.store(place, ((slope0 - first * mean) * rstd).to(kind), mask=ok)
    tl.store(place + HALF, ((slope1 - second * mean) * rstd).to(kind), mask=ok)
