"""The Triton kernel that expands 4-bit weights."""

# ruff: noqa: N803 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def block_scales(
    scales, scale_code, scale_scales, scale_offset, row_at, row_ok, block, inner,
    NESTED: tl.constexpr, ROWS: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """The scale of each packed byte of a tile, float32[ROWS, BYTES]; see `load_nf4`."""
    part = block * (BYTES // 32) + tl.arange(0, BYTES // 32)  # blocks of 64 values in a row
    part_ok = row_ok[:, None] & (part < inner // 64)[None, :]
    number = row_at[:, None] * (inner // 64) + part[None, :]
    if NESTED:
        small = tl.load(scales + number, mask=part_ok, other=0).to(tl.int32)
        scale = tl.load(scale_code + small)
        scale *= tl.load(scale_scales + number // 256, mask=part_ok, other=0.0)
        scale += tl.load(scale_offset)
    else:
        scale = tl.load(scales + number, mask=part_ok, other=0.0)
    # one scale per block -> one per byte, without reading it 32 times
    spread = tl.broadcast_to(scale[:, :, None], (ROWS, BYTES // 32, 32))
    return tl.reshape(spread, (ROWS, BYTES))


@triton.jit
def load_nf4(
    packed, scales, scale_code, scale_scales, scale_offset, code, b, out, n_rows, inner, width,
    column,
    RANK: tl.constexpr, NESTED: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr,
    BYTES: tl.constexpr,
):  # fmt: skip
    """Dequantize ROWS 4-bit rows into an extended weight [n_rows, width].

    The grid is (row tiles, column tiles); one more column of programs writes B and zeros after the
    K columns. bitsandbytes' NF4 layout: two values per byte, the first in the high 4 bits; 64
    values (32 bytes) share a scale; with double quantization (NESTED), scales are 8-bit codes of
    which 256 share a second-level scale, plus one offset. K is a multiple of 64, so no block of
    values crosses a row.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_ok = row < n_rows
    block = tl.program_id(1)
    row_at = row.to(tl.int64)
    if block * BYTES * 2 < inner:
        at = block * BYTES + tl.arange(0, BYTES)
        ok = row_ok[:, None] & (at < inner // 2)[None, :]
        q = tl.load(packed + row_at[:, None] * (inner // 2) + at[None, :], mask=ok, other=0)
        spread = block_scales(
            scales, scale_code, scale_scales, scale_offset, row_at, row_ok, block, inner,
            NESTED, ROWS, BYTES,
        )  # fmt: skip
        high = tl.load(code + (q >> 4).to(tl.int32)) * spread
        low = tl.load(code + (q & 15).to(tl.int32)) * spread
        values = tl.interleave(high, low)
        to = block * BYTES * 2 + tl.arange(0, BYTES * 2)
        fits = row_ok[:, None] & (to < inner)[None, :]
        place = out + row_at[:, None] * width + to[None, :]
        tl.store(place, values.to(out.dtype.element_ty), mask=fits)
    else:
        tail = tl.arange(0, TAIL)
        j = tail - column  # B's columns are column..column + RANK; all others become zero
        mine = row_ok[:, None] & (j >= 0)[None, :] & (j < RANK)[None, :]
        value = tl.load(b + row_at[:, None] * RANK + j[None, :], mask=mine, other=0.0)
        behind = row_ok[:, None] & (inner + tail < width)[None, :]
        tail_place = out + row_at[:, None] * width + inner + tail[None, :]
        tl.store(tail_place, value.to(out.dtype.element_ty), mask=behind)
