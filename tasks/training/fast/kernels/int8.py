"""Triton kernels of the backward pass's products in 8 bit: gradients of linear layers' inputs.

    gradient of the input [tokens, K] = grad [tokens, n] W [n, K]

`torch_weights` has the method. LoRA's part, grad B, is a product of its own in the precision of
grad. The integer units of an RTX 3080 have four times the rate of its bfloat16 units, those of an
H100 twice.
"""

# ruff: noqa: N803 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl

from tasks.training.fast.kernels.nf4 import block_scales
from tasks.training.fast.kernels.rotation import hadamard, nearest


@triton.jit
def _to_int8(values):
    return tl.minimum(tl.maximum(nearest(values), -127.0), 127.0).to(tl.int8)


@triton.jit
def load_nf4_rotated(
    packed, scales, scale_code, scale_scales, scale_offset, code, b, column_scales, out, tail_out,
    inner, stride, width, column,
    RANK: tl.constexpr, NESTED: tl.constexpr, TAIL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """Dequantize 64 rows of a 4-bit weight, rotate them, round to 8 bit and store transposed.

    Args as of `load_nf4`; `column_scales` is float32[K], `out` int8[K, n of the group], and
    `tail_out` [n, width] gets B and zeros, in the precision of gradients.
    """
    row = tl.program_id(0) * 64 + tl.arange(0, 64)
    row_at = row.to(tl.int64)
    block = tl.program_id(1)
    kind = tail_out.dtype.element_ty
    if block * BYTES * 2 < inner:
        at = block * BYTES + tl.arange(0, BYTES)
        ok = (at < inner // 2)[None, :]
        q = tl.load(packed + row_at[:, None] * (inner // 2) + at[None, :], mask=ok, other=0)
        spread = block_scales(
            scales, scale_code, scale_scales, scale_offset, row_at, row >= 0, block, inner,
            NESTED, 64, BYTES,
        )  # fmt: skip
        high = tl.load(code + (q >> 4).to(tl.int32)) * spread
        low = tl.load(code + (q & 15).to(tl.int32)) * spread
        values = tl.interleave(high, low).to(kind)
        to = block * BYTES * 2 + tl.arange(0, BYTES * 2)
        fits = to < inner
        turned = tl.dot(hadamard(kind), values, input_precision="ieee")
        turned *= (1.0 / tl.load(column_scales + to, mask=fits, other=1.0))[None, :]
        place = out + to.to(tl.int64)[:, None] * stride + row[None, :]
        tl.store(place, tl.trans(_to_int8(turned)), mask=fits[:, None])
    else:
        j = tl.arange(0, TAIL)
        mine = (j >= column) & (j < column + RANK)
        b_place = b + row_at[:, None] * RANK + (j - column)[None, :]
        value = tl.load(b_place, mask=mine[None, :] & (row >= 0)[:, None], other=0.0)
        tail_place = tail_out + row_at[:, None] * width + j[None, :]
        tl.store(tail_place, value.to(kind), mask=(j < width)[None, :] & (row >= 0)[:, None])


@triton.jit
def _tile(grad, row, row_ok, start, stride, n, ROWS: tl.constexpr, PARTS: tl.constexpr):
    """[ROWS * PARTS, 64]: blocks of 64 features of ROWS rows; with it their places and mask."""
    line = tl.arange(0, ROWS * PARTS)
    at = start + (line % PARTS)[:, None] * 64 + tl.arange(0, 64)[None, :]
    line_row = row + line // PARTS
    ok = (line_row < row_ok)[:, None] & (at < n)
    place = line_row.to(tl.int64)[:, None] * stride + at
    return tl.load(grad + place, mask=ok, other=0.0), line_row, at, ok


@triton.jit(do_not_specialize=["tokens"])
def quantize(
    grad, tail, small, scales, back, stride, back_stride, tokens, n,
    WIDTH: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """Rotate a gradient and round it to int8 [tokens, n] with a scale per row; and grad B.

    The first pass finds the rows' largest magnitudes, the second finds most of its input in the
    cache. `tail` is [n, WIDTH], B of all members; `back` [tokens, WIDTH], strided, gets grad B.
    """
    first = tl.program_id(0) * ROWS
    row = first + tl.arange(0, ROWS)
    row_ok = row < tokens
    kind = grad.dtype.element_ty
    turn = hadamard(kind)
    step: tl.constexpr = PARTS * 64
    top = tl.zeros((ROWS,), tl.float32)
    for start in range(0, n, step):
        values, _, _, _ = _tile(grad, first, tokens, start, stride, n, ROWS, PARTS)
        turned = tl.abs(tl.dot(values, turn, input_precision="ieee"))
        top = tl.maximum(top, tl.max(tl.reshape(turned, (ROWS, step)), 1))
    inverse = tl.where(top > 0.0, 127.0 / top, 0.0)
    spread = tl.reshape(tl.broadcast_to(inverse[:, None], (ROWS, PARTS)), (ROWS * PARTS,))
    tail_at = tl.arange(0, TAIL)
    total = tl.zeros((ROWS, TAIL), tl.float32)
    for start in range(0, n, step):
        values, line_row, at, ok = _tile(grad, first, tokens, start, stride, n, ROWS, PARTS)
        turned = tl.dot(values, turn, input_precision="ieee") * spread[:, None]
        tl.store(small + line_row.to(tl.int64)[:, None] * n + at, _to_int8(turned), mask=ok)
        if WIDTH > 0:
            down_at = start + tl.arange(0, step)
            down_ok = (down_at < n)[:, None] & (tail_at < WIDTH)[None, :]
            b = tl.load(tail + down_at[:, None] * WIDTH + tail_at[None, :], mask=down_ok, other=0.0)
            wide = tl.reshape(values, (ROWS, step))
            total += tl.dot(wide, b, input_precision="ieee")
    tl.store(scales + row, top / 127.0, mask=row_ok)
    if WIDTH > 0:
        place = back + row.to(tl.int64)[:, None] * back_stride + tail_at[None, :]
        tl.store(place, total.to(kind), mask=row_ok[:, None] & (tail_at < WIDTH)[None, :])


@triton.jit(do_not_specialize=["tokens"])
def product8(
    small, weight, scales, weight_scales, out, out_stride, tokens, n, inner,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """out[tokens, K] = small[tokens, n] weight[K, n]^T, times both scales.

    TOGETHER tiles of rows take the same columns one after another, so that weights stay in the
    cache. The sum of n products of at most 127^2 stays below 2^31 for n up to 133,000.
    """
    number = tl.program_id(0)
    row_tiles, column_tiles = tl.cdiv(tokens, BM), tl.cdiv(inner, BN)
    band = number // (TOGETHER * column_tiles)
    size = tl.minimum(row_tiles - band * TOGETHER, TOGETHER)
    within = number % (TOGETHER * column_tiles)
    row = (band * TOGETHER + within % size) * BM + tl.arange(0, BM)
    column = within // size * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    row_ok, column_ok = row < tokens, column < inner
    left = small + row.to(tl.int64)[:, None] * n + k[None, :]
    right = weight + column.to(tl.int64)[None, :] * n + k[:, None]
    total = tl.zeros((BM, BN), tl.int32)
    for start in range(0, n, BK):
        ok = k < n - start
        x = tl.load(left, mask=row_ok[:, None] & ok[None, :], other=0)
        w = tl.load(right, mask=ok[:, None] & column_ok[None, :], other=0)
        total = tl.dot(x, w, total, out_dtype=tl.int32)
        left += BK
        right += BK
    scale = tl.load(scales + row, mask=row_ok, other=0.0)[:, None]
    scale = scale * tl.load(weight_scales + column, mask=column_ok, other=0.0)[None, :]
    place = out + row.to(tl.int64)[:, None] * out_stride + column[None, :]
    value = (total.to(tl.float32) * scale).to(out.dtype.element_ty)
    tl.store(place, value, mask=row_ok[:, None] & column_ok[None, :])
