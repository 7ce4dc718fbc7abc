"""Triton functions on the features of attention heads.

Head sizes that are no power of two are split in two parts, D0 + D1: 80 as 64 + 16, as padding it to
128 would waste a third of the matrix units. D1 is 0 for powers of two; second parts are then unused
placeholders that the compiler removes.
"""

# ruff: noqa: N803 - capitals are compile-time constants
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def load_rows(base, row, stride, at, row_ok, size, start: tl.constexpr):
    """[rows, block] of one head from feature `start` on, zeros outside."""
    ok = row_ok[:, None] & (start + at < size)[None, :]
    # 64 bit: tokens * stride passes 2^31 in long windows of wide models
    place = base + row.to(tl.int64)[:, None] * stride + (start + at)[None, :]
    return tl.load(place, mask=ok, other=0.0)


@triton.jit
def load_head(base, row, stride, d0, d1, row_ok, size, D0: tl.constexpr, D1: tl.constexpr):
    """Both parts of a head's rows: [rows, D0], [rows, D1]."""
    part0 = load_rows(base, row, stride, d0, row_ok, size, 0)
    part1 = part0
    if D1 > 0:
        part1 = load_rows(base, row, stride, d1, row_ok, size, D0)
    return part0, part1


@triton.jit
def _store_part(base, row, stride, at, row_ok, size, value, start: tl.constexpr):
    ok = row_ok[:, None] & (start + at < size)[None, :]
    place = base + row.to(tl.int64)[:, None] * stride + (start + at)[None, :]
    tl.store(place, value.to(base.dtype.element_ty), mask=ok)


@triton.jit
def store_head(
    base, row, stride, d0, d1, row_ok, size, part0, part1, D0: tl.constexpr, D1: tl.constexpr
):
    """Write both parts of a head's rows."""
    _store_part(base, row, stride, d0, row_ok, size, part0, 0)
    if D1 > 0:
        _store_part(base, row, stride, d1, row_ok, size, part1, D0)


@triton.jit
def product(a0, b0, a1, b1, D1: tl.constexpr):
    """a b^T over both parts of the features: [rows, columns], float32."""
    s = tl.dot(a0, tl.trans(b0), input_precision="ieee")
    if D1 > 0:
        s += tl.dot(a1, tl.trans(b1), input_precision="ieee")
    return s
