"""Triton kernels of the fast path, except attention; `triton_ops` launches them.

Each does what the operation of the same name in `torch_ops.TorchOps` does, in one pass over memory,
and uses no feature newer than Ampere (sm_86). Tests compare the two in Triton's interpreter on a
CPU and in bfloat16 on a GPU.

Notation: matrices are [tokens, features], row-major, with a row stride in elements. K (`inner`) is
the number of input features; an extended matrix holds LoRA's columns after them (see `torch_ops`).
`row` and `at` are the rows and columns of a program's tile; masks such as `row_ok` cut off what
lies outside, because tile sizes are powers of two and shapes are not.

Precision: values are computed in float32 and rounded once, when they are stored. "ieee" keeps
float32 inputs of a product in full precision instead of TF32; bfloat16 is not affected. A tile of
`tl.dot` has at least 16 rows and columns, so ranks are padded to PADDED >= 16 with zeros.

Row offsets are 64-bit: tokens times stride passes 2^31 in long windows of wide models. Arguments
that differ from window to window are in `do_not_specialize`, as Triton compiles a variant for
integers that are 1 or multiples of 16.
"""

# ruff: noqa: N803 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def hash_bits(places, seed):
    """32 hash bits of indexes (int32): murmur3's finalizer, as `torch_ops.hash_bits`.

    Dropout masks are computed from it in the forward and again in the backward pass, not stored.
    """
    h = places.to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32)
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    return h ^ (h >> 16)


@triton.jit
def kept(h, member: tl.constexpr, bits: tl.constexpr, threshold):
    """Whether a member keeps its value: each member compares its own bits of the hash."""
    return ((h >> (member * bits)) & ((1 << bits) - 1)).to(tl.int32) >= threshold


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
        spread = tl.reshape(spread, (ROWS, BYTES))
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


@triton.jit
def _normalized(x, at, ok, inner, eps, LAYER_NORM: tl.constexpr):
    """A normalized row and one over its deviation; `x` points to the row."""
    values = tl.load(x + at, mask=ok, other=0.0).to(tl.float32)
    if LAYER_NORM:
        # masked again, as subtracting the mean makes the padding nonzero
        values = tl.where(ok, values - tl.sum(values, 0) / inner, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(values * values, 0) / inner + eps)
    return values * rstd, rstd


@triton.jit
def norm(
    x, weight, bias, out, x_stride, out_stride, inner, eps,
    LAYER_NORM: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """LayerNorm or RMSNorm, one row per program; BLOCK covers the row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    ok = at < inner
    hat, _ = _normalized(x + row * x_stride, at, ok, inner, eps, LAYER_NORM)
    result = hat * tl.load(weight + at, mask=ok, other=0.0).to(tl.float32)
    if HAS_BIAS:
        result += tl.load(bias + at, mask=ok, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + at, result.to(out.dtype.element_ty), mask=ok)


@triton.jit
def norm_backward(
    x, weight, grad, residual, x_stride, grad_stride, residual_stride, inner, eps,
    LAYER_NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds the input's gradient to that of the residual stream, in place; one row per program.

    dx = rstd (g - hat mean(g hat)), minus mean(g) for LayerNorm, with g = grad * weight. Weight and
    bias are frozen, so they need no gradient.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    ok = at < inner
    hat, rstd = _normalized(x + row * x_stride, at, ok, inner, eps, LAYER_NORM)
    slope = tl.load(grad + row * grad_stride + at, mask=ok, other=0.0).to(tl.float32)
    slope *= tl.load(weight + at, mask=ok, other=0.0).to(tl.float32)
    result = slope - hat * (tl.sum(slope * hat, 0) / inner)
    if LAYER_NORM:
        result -= tl.sum(slope, 0) / inner
    place = residual + row * residual_stride + at
    before = tl.load(place, mask=ok, other=0.0).to(tl.float32)
    tl.store(place, (before + result * rstd).to(residual.dtype.element_ty), mask=ok)


@triton.jit
def _down(x_tile, a, rank_at, at, ok, member: tl.constexpr, RANK: tl.constexpr, inner):
    """x_tile A^T of one member: [tokens, block] -> [tokens, padded rank]."""
    place = a + (member * RANK + rank_at)[None, :] * inner + at[:, None]
    rows = tl.load(place, mask=ok[:, None] & (rank_at < RANK)[None, :], other=0.0)
    return tl.dot(x_tile, rows, input_precision="ieee")


@triton.jit(do_not_specialize=["tokens", "place", "threshold"])
def lora_in(
    x, a, side, seeds, x_stride, tokens, inner, width, scale, place, threshold,
    MEMBERS: tl.constexpr, RANK: tl.constexpr, PADDED: tl.constexpr, BITS: tl.constexpr,
    DROP: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes u = scale * dropout(x) A^T of all members after x's K columns, then zeros up to width.

    u is also written to `side` [tokens, MEMBERS * RANK], for the backward pass. `scale` includes
    dropout's 1 / (1 - rate). MEMBERS (1 to 3) is unrolled by hand: Triton has no
    arrays of accumulators. x is read once for all members, with a mask of its own for each.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_ok = row < tokens
    row_at = row.to(tl.int64)
    rank_at = tl.arange(0, PADDED)
    seed = tl.load(seeds + place)
    first = tl.zeros((ROWS, PADDED), tl.float32)
    second = tl.zeros((ROWS, PADDED), tl.float32)
    third = tl.zeros((ROWS, PADDED), tl.float32)
    for start in range(0, inner, BLOCK):
        at = start + tl.arange(0, BLOCK)
        ok = at < inner
        spot = x + row_at[:, None] * x_stride + at[None, :]
        values = tl.load(spot, mask=row_ok[:, None] & ok[None, :], other=0.0)
        if DROP:
            # the index is that of TorchOps' masks: row * K + column, wrapping at 32 bits
            h = hash_bits(row[:, None] * inner + at[None, :], seed)
            part = tl.where(kept(h, 0, BITS, threshold), values, 0.0)
            first += _down(part, a, rank_at, at, ok, 0, RANK, inner)
            if MEMBERS > 1:
                part = tl.where(kept(h, 1, BITS, threshold), values, 0.0)
                second += _down(part, a, rank_at, at, ok, 1, RANK, inner)
            if MEMBERS > 2:
                part = tl.where(kept(h, 2, BITS, threshold), values, 0.0)
                third += _down(part, a, rank_at, at, ok, 2, RANK, inner)
        else:
            first += _down(values, a, rank_at, at, ok, 0, RANK, inner)
            if MEMBERS > 1:
                second += _down(values, a, rank_at, at, ok, 1, RANK, inner)
            if MEMBERS > 2:
                third += _down(values, a, rank_at, at, ok, 2, RANK, inner)
    _blank(x, row, row_ok, x_stride, inner, width, MEMBERS * RANK, TAIL)
    behind = x + row_at[:, None] * x_stride + inner + rank_at[None, :]
    beside = side + row_at[:, None] * (MEMBERS * RANK) + rank_at[None, :]
    fits = row_ok[:, None] & (rank_at < RANK)[None, :]
    _store_both(behind, beside, first * scale, fits)
    if MEMBERS > 1:
        _store_both(behind + RANK, beside + RANK, second * scale, fits)
    if MEMBERS > 2:
        _store_both(behind + 2 * RANK, beside + 2 * RANK, third * scale, fits)


@triton.jit
def _blank(x, row, row_ok, stride, inner, width, used: tl.constexpr, TAIL: tl.constexpr):
    """Zeros in an extended matrix's columns after LoRA's `used` ones."""
    tail = used + tl.arange(0, TAIL)
    behind = x + row.to(tl.int64)[:, None] * stride + inner + tail[None, :]
    ok = row_ok[:, None] & (inner + tail < width)[None, :]
    tl.store(behind, tl.zeros(behind.shape, x.dtype.element_ty), mask=ok)


@triton.jit
def _store_both(first, second, value, ok):
    value = value.to(first.dtype.element_ty)
    tl.store(first, value, mask=ok)
    tl.store(second, value, mask=ok)


@triton.jit
def restore(
    x, side, x_stride, tokens, inner, width, columns,
    TAIL: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Writes LoRA's columns of an extended matrix from `side` [tokens, columns], then zeros."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tail = tl.arange(0, TAIL)
    row_at = row.to(tl.int64)
    some = (row < tokens)[:, None] & (tail < columns)[None, :]
    value = tl.load(side + row_at[:, None] * columns + tail[None, :], mask=some, other=0.0)
    behind = x + row_at[:, None] * x_stride + inner + tail[None, :]
    tl.store(behind, value, mask=(row < tokens)[:, None] & (inner + tail < width)[None, :])


@triton.jit
def _load_a(a, rank_at, at, ok, member: tl.constexpr, RANK: tl.constexpr, inner):
    """Rows of A of one member, [padded rank, block]."""
    place = a + (member * RANK + rank_at)[:, None] * inner + at[None, :]
    return tl.load(place, mask=(rank_at < RANK)[:, None] & ok[None, :], other=0.0)


@triton.jit
def _add_a(a_grad, value, rank_at, at, ok, member: tl.constexpr, RANK: tl.constexpr, inner):
    place = a_grad + (member * RANK + rank_at)[:, None] * inner + at[None, :]
    tl.atomic_add(place, value, mask=(rank_at < RANK)[:, None] & ok[None, :], sem="relaxed")


@triton.jit
def _back(keep, values, u, rows, DROP: tl.constexpr):
    """One member's part of the input's gradient (mask * (u A)) and of A's (u^T (mask * x)).

    `u` is the gradient of the member's columns; both results are not scaled yet.
    """
    back = tl.dot(u, rows, input_precision="ieee")
    if DROP:
        back = tl.where(keep, back, 0.0)
        values = tl.where(keep, values, 0.0)
    return back, tl.dot(tl.trans(u), values.to(u.dtype), input_precision="ieee")


@triton.jit(do_not_specialize=["tokens", "place", "threshold", "steps"])
def lora_in_backward(
    x, grad, a, a_grad, seeds, x_stride, grad_stride, tokens, inner, scale, place, threshold, steps,
    MEMBERS: tl.constexpr, RANK: tl.constexpr, PADDED: tl.constexpr, BITS: tl.constexpr,
    DROP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From the gradient of an extended input: adds A's part to its K columns; A's own gradient.

    A program handles one tile of columns and `steps` consecutive tiles of rows: it keeps its tile
    of A and the sum of A's gradient in registers and adds the sum once. Programs of the same
    columns add atomically in no fixed order, so the last bits of a gradient differ between runs.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ok = at < inner
    seed = tl.load(seeds + place)
    rank_at = tl.arange(0, PADDED)
    rank_ok = rank_at < RANK
    a0 = _load_a(a, rank_at, at, ok, 0, RANK, inner)
    sum0 = tl.zeros((PADDED, BLOCK), tl.float32)
    sum1 = tl.zeros((PADDED, BLOCK), tl.float32)
    sum2 = tl.zeros((PADDED, BLOCK), tl.float32)
    a1, a2 = a0, a0
    if MEMBERS > 1:
        a1 = _load_a(a, rank_at, at, ok, 1, RANK, inner)
    if MEMBERS > 2:
        a2 = _load_a(a, rank_at, at, ok, 2, RANK, inner)
    begin = tl.program_id(1) * steps * ROWS
    for start in range(begin, tl.minimum(begin + steps * ROWS, tokens), ROWS):
        row = start + tl.arange(0, ROWS)
        row_ok = row < tokens
        row_at = row.to(tl.int64)
        both = row_ok[:, None] & ok[None, :]
        values = tl.load(x + row_at[:, None] * x_stride + at[None, :], mask=both, other=0.0)
        spot = grad + row_at[:, None] * grad_stride + at[None, :]
        total = tl.load(spot, mask=both, other=0.0).to(tl.float32)
        h = tl.zeros((ROWS, BLOCK), tl.uint32)
        if DROP:
            h = hash_bits(row[:, None] * inner + at[None, :], seed)
        # LoRA's columns of the gradient: read by the programs of all columns, written by none
        side = grad + row_at[:, None] * grad_stride + inner + rank_at[None, :]
        some = row_ok[:, None] & rank_ok[None, :]
        u = tl.load(side, mask=some, other=0.0)
        back, more = _back(kept(h, 0, BITS, threshold), values, u, a0, DROP)
        total += scale * back
        sum0 += more
        if MEMBERS > 1:
            u = tl.load(side + RANK, mask=some, other=0.0)
            back, more = _back(kept(h, 1, BITS, threshold), values, u, a1, DROP)
            total += scale * back
            sum1 += more
        if MEMBERS > 2:
            u = tl.load(side + 2 * RANK, mask=some, other=0.0)
            back, more = _back(kept(h, 2, BITS, threshold), values, u, a2, DROP)
            total += scale * back
            sum2 += more
        tl.store(spot, total.to(grad.dtype.element_ty), mask=both)
    _add_a(a_grad, sum0 * scale, rank_at, at, ok, 0, RANK, inner)
    if MEMBERS > 1:
        _add_a(a_grad, sum1 * scale, rank_at, at, ok, 1, RANK, inner)
    if MEMBERS > 2:
        _add_a(a_grad, sum2 * scale, rank_at, at, ok, 2, RANK, inner)


@triton.jit(do_not_specialize=["tokens", "steps"])
def lora_out_backward(
    grad, u, b_grad, grad_stride, u_stride, tokens, n, steps,
    RANK: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds grad^T u to B's gradient [n, RANK]; tiles and atomic adds as in `lora_in_backward`."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ok = at < n
    rank_at = tl.arange(0, PADDED)
    rank_ok = rank_at < RANK
    total = tl.zeros((BLOCK, PADDED), tl.float32)
    begin = tl.program_id(1) * steps * ROWS
    for start in range(begin, tl.minimum(begin + steps * ROWS, tokens), ROWS):
        row = start + tl.arange(0, ROWS)
        row_ok = row < tokens
        row_at = row.to(tl.int64)
        place = grad + row_at[:, None] * grad_stride + at[None, :]
        slope = tl.load(place, mask=row_ok[:, None] & ok[None, :], other=0.0)
        side = u + row_at[:, None] * u_stride + rank_at[None, :]
        values = tl.load(side, mask=row_ok[:, None] & rank_ok[None, :], other=0.0)
        total += tl.dot(tl.trans(slope), values, input_precision="ieee")
    place = b_grad + at[:, None] * RANK + rank_at[None, :]
    tl.atomic_add(place, total, mask=ok[:, None] & rank_ok[None, :], sem="relaxed")


@triton.jit
def rope(
    qkv, cos, sin, stride, sign, SIZE: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
    HEADS_UP: tl.constexpr, HALF_UP: tl.constexpr,
):  # fmt: skip
    """Rotates q and k in place, one token per program; q's and k's heads are adjacent.

    Feature i is paired with i + HALF (the layout of transformers); features past 2 * HALF are not
    rotated. A rotation's gradient is the inverse rotation: `sign` -1.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS_UP)
    at = tl.arange(0, HALF_UP)
    ok = at < HALF
    c = tl.load(cos + row * HALF + at, mask=ok, other=0.0)[None, :]
    s = tl.load(sin + row * HALF + at, mask=ok, other=0.0)[None, :] * sign
    both = (head < HEADS)[:, None] & ok[None, :]
    place = qkv + row * stride + head[:, None] * SIZE + at[None, :]
    first = tl.load(place, mask=both, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=both, other=0.0).to(tl.float32)
    kind = qkv.dtype.element_ty
    tl.store(place, (first * c - second * s).to(kind), mask=both)
    tl.store(place + HALF, (second * c + first * s).to(kind), mask=both)


@triton.jit
def swiglu(gate_up, out, stride, out_stride, inner, BLOCK: tl.constexpr):
    """silu(gate) * up from [tokens, 2 F]; one row and tile of columns per program."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < inner
    gate = tl.load(gate_up + row * stride + at, mask=ok, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * stride + inner + at, mask=ok, other=0.0).to(tl.float32)
    result = gate * tl.sigmoid(gate) * up
    tl.store(out + row * out_stride + at, result.to(out.dtype.element_ty), mask=ok)


@triton.jit
def swiglu_backward(gate_up, grad, stride, grad_stride, inner, BLOCK: tl.constexpr):
    """Replaces gate and up by their gradients, in place; `grad` is that of silu(gate) * up.

    d silu(z) / dz = s (1 + z (1 - s)) with s = sigmoid(z).
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < inner
    place = gate_up + row * stride + at
    gate = tl.load(place, mask=ok, other=0.0).to(tl.float32)
    up = tl.load(place + inner, mask=ok, other=0.0).to(tl.float32)
    slope = tl.load(grad + row * grad_stride + at, mask=ok, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    kind = gate_up.dtype.element_ty
    tl.store(place, (slope * up * share * (1.0 + gate * (1.0 - share))).to(kind), mask=ok)
    tl.store(place + inner, (slope * gate * share).to(kind), mask=ok)


@triton.jit(do_not_specialize=["tokens", "place", "threshold"])
def swiglu_lora(
    gate_up, out, a, side, seeds, stride, out_stride, tokens, inner, width, scale, place, threshold,
    RANK: tl.constexpr, PADDED: tl.constexpr, BITS: tl.constexpr, DROP: tl.constexpr,
    TAIL: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`swiglu` and, of its output, `lora_in` with one member: the output is not read again."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_ok = row < tokens
    row_at = row.to(tl.int64)
    rank_at = tl.arange(0, PADDED)
    seed = tl.load(seeds + place)
    first = tl.zeros((ROWS, PADDED), tl.float32)
    for start in range(0, inner, BLOCK):
        at = start + tl.arange(0, BLOCK)
        ok = at < inner
        both = row_ok[:, None] & ok[None, :]
        spot = gate_up + row_at[:, None] * stride + at[None, :]
        gate = tl.load(spot, mask=both, other=0.0).to(tl.float32)
        up = tl.load(spot + inner, mask=both, other=0.0).to(tl.float32)
        values = (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty)
        tl.store(out + row_at[:, None] * out_stride + at[None, :], values, mask=both)
        if DROP:
            h = hash_bits(row[:, None] * inner + at[None, :], seed)
            values = tl.where(kept(h, 0, BITS, threshold), values, 0.0)
        first += _down(values, a, rank_at, at, ok, 0, RANK, inner)
    _blank(out, row, row_ok, out_stride, inner, width, RANK, TAIL)
    behind = out + row_at[:, None] * out_stride + inner + rank_at[None, :]
    fits = row_ok[:, None] & (rank_at < RANK)[None, :]
    _store_both(behind, side + row_at[:, None] * RANK + rank_at[None, :], first * scale, fits)


@triton.jit(do_not_specialize=["tokens", "place", "threshold", "steps"])
def swiglu_lora_backward(
    gate_up, grad, a, a_grad, seeds, stride, grad_stride, tokens, inner, scale, place, threshold,
    steps,
    RANK: tl.constexpr, PADDED: tl.constexpr, BITS: tl.constexpr, DROP: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`lora_in_backward` with one member, then `swiglu_backward`, in one pass over memory.

    The output of swiglu, which A's gradient needs, is computed again from gate and up; the
    gradient of the output with A's part in it is never stored. Tiles as in `lora_in_backward`.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ok = at < inner
    seed = tl.load(seeds + place)
    rank_at = tl.arange(0, PADDED)
    rank_ok = rank_at < RANK
    a0 = _load_a(a, rank_at, at, ok, 0, RANK, inner)
    sum0 = tl.zeros((PADDED, BLOCK), tl.float32)
    kind = gate_up.dtype.element_ty
    begin = tl.program_id(1) * steps * ROWS
    for start in range(begin, tl.minimum(begin + steps * ROWS, tokens), ROWS):
        row = start + tl.arange(0, ROWS)
        row_ok = row < tokens
        row_at = row.to(tl.int64)
        both = row_ok[:, None] & ok[None, :]
        spot = gate_up + row_at[:, None] * stride + at[None, :]
        gate = tl.load(spot, mask=both, other=0.0).to(tl.float32)
        up = tl.load(spot + inner, mask=both, other=0.0).to(tl.float32)
        line = grad + row_at[:, None] * grad_stride
        slope = tl.load(line + at[None, :], mask=both, other=0.0).to(tl.float32)
        u = tl.load(
            line + inner + rank_at[None, :], mask=row_ok[:, None] & rank_ok[None, :], other=0.0
        )
        share = tl.sigmoid(gate)
        values = (gate * share * up).to(kind)
        h = tl.zeros((ROWS, BLOCK), tl.uint32)
        if DROP:
            h = hash_bits(row[:, None] * inner + at[None, :], seed)
        back, more = _back(kept(h, 0, BITS, threshold), values, u, a0, DROP)
        slope += scale * back
        sum0 += more
        tl.store(spot, (slope * up * share * (1.0 + gate * (1.0 - share))).to(kind), mask=both)
        tl.store(spot + inner, (slope * gate * share).to(kind), mask=both)
    _add_a(a_grad, sum0 * scale, rank_at, at, ok, 0, RANK, inner)


@triton.jit
def cross_entropy(logits, targets, losses, stride, values, scale, BLOCK: tl.constexpr):
    """Loss of one row per program; its logits are replaced by their gradient times `scale`.

    Two passes over the vocabulary: an online log-sum-exp, then softmax minus the one-hot target.
    The target's logit is read first, as the second pass overwrites it.
    """
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    wanted = tl.load(logits + row * stride + target).to(tl.float32)
    high, total = -float("inf"), 0.0
    for start in range(0, values, BLOCK):
        at = start + tl.arange(0, BLOCK)
        part = tl.load(logits + row * stride + at, mask=at < values, other=-float("inf"))
        part = part.to(tl.float32)
        top = tl.maximum(high, tl.max(part, 0))
        total = total * tl.exp(high - top) + tl.sum(tl.exp(part - top), 0)
        high = top
    lse = high + tl.log(total)
    tl.store(losses + row, lse - wanted)
    for start in range(0, values, BLOCK):
        at = start + tl.arange(0, BLOCK)
        place = logits + row * stride + at
        part = tl.load(place, mask=at < values, other=-float("inf")).to(tl.float32)
        slope = tl.exp(part - lse) - tl.where(at == target, 1.0, 0.0)
        tl.store(place, (slope * scale).to(logits.dtype.element_ty), mask=at < values)
