"""Triton kernels of LoRA's products."""

# ruff: noqa: N803 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def hash_bits(places, seed):
    """32 hash bits of indexes (int32): murmur3's finalizer, as `ops.dropout.hash_bits`.

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
def down(x_tile, a, rank_at, at, ok, member: tl.constexpr, RANK: tl.constexpr, inner):
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
            first += down(part, a, rank_at, at, ok, 0, RANK, inner)
            if MEMBERS > 1:
                part = tl.where(kept(h, 1, BITS, threshold), values, 0.0)
                second += down(part, a, rank_at, at, ok, 1, RANK, inner)
            if MEMBERS > 2:
                part = tl.where(kept(h, 2, BITS, threshold), values, 0.0)
                third += down(part, a, rank_at, at, ok, 2, RANK, inner)
        else:
            first += down(values, a, rank_at, at, ok, 0, RANK, inner)
            if MEMBERS > 1:
                second += down(values, a, rank_at, at, ok, 1, RANK, inner)
            if MEMBERS > 2:
                third += down(values, a, rank_at, at, ok, 2, RANK, inner)
    blank(x, row, row_ok, x_stride, inner, width, MEMBERS * RANK, TAIL)
    behind = x + row_at[:, None] * x_stride + inner + rank_at[None, :]
    beside = side + row_at[:, None] * (MEMBERS * RANK) + rank_at[None, :]
    fits = row_ok[:, None] & (rank_at < RANK)[None, :]
    store_both(behind, beside, first * scale, fits)
    if MEMBERS > 1:
        store_both(behind + RANK, beside + RANK, second * scale, fits)
    if MEMBERS > 2:
        store_both(behind + 2 * RANK, beside + 2 * RANK, third * scale, fits)


@triton.jit
def blank(x, row, row_ok, stride, inner, width, used: tl.constexpr, TAIL: tl.constexpr):
    """Zeros in an extended matrix's columns after LoRA's `used` ones."""
    tail = used + tl.arange(0, TAIL)
    behind = x + row.to(tl.int64)[:, None] * stride + inner + tail[None, :]
    ok = row_ok[:, None] & (inner + tail < width)[None, :]
    tl.store(behind, tl.zeros(behind.shape, x.dtype.element_ty), mask=ok)


@triton.jit
def store_both(first, second, value, ok):
    """Store a tile in two places."""
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
def load_a(a, rank_at, at, ok, member: tl.constexpr, RANK: tl.constexpr, inner):
    """Rows of A of one member, [padded rank, block]."""
    place = a + (member * RANK + rank_at)[:, None] * inner + at[None, :]
    return tl.load(place, mask=(rank_at < RANK)[:, None] & ok[None, :], other=0.0)


@triton.jit
def add_a(a_grad, value, rank_at, at, ok, member: tl.constexpr, RANK: tl.constexpr, inner):
    """Add a tile of one member's gradient atomically."""
    place = a_grad + (member * RANK + rank_at)[:, None] * inner + at[None, :]
    tl.atomic_add(place, value, mask=(rank_at < RANK)[:, None] & ok[None, :], sem="relaxed")


@triton.jit
def back_of(keep, values, u, rows, DROP: tl.constexpr):
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
    a0 = load_a(a, rank_at, at, ok, 0, RANK, inner)
    sum0 = tl.zeros((PADDED, BLOCK), tl.float32)
    sum1 = tl.zeros((PADDED, BLOCK), tl.float32)
    sum2 = tl.zeros((PADDED, BLOCK), tl.float32)
    a1, a2 = a0, a0
    if MEMBERS > 1:
        a1 = load_a(a, rank_at, at, ok, 1, RANK, inner)
    if MEMBERS > 2:
        a2 = load_a(a, rank_at, at, ok, 2, RANK, inner)
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
        part, more = back_of(kept(h, 0, BITS, threshold), values, u, a0, DROP)
        total += scale * part
        sum0 += more
        if MEMBERS > 1:
            u = tl.load(side + RANK, mask=some, other=0.0)
            part, more = back_of(kept(h, 1, BITS, threshold), values, u, a1, DROP)
            total += scale * part
            sum1 += more
        if MEMBERS > 2:
            u = tl.load(side + 2 * RANK, mask=some, other=0.0)
            part, more = back_of(kept(h, 2, BITS, threshold), values, u, a2, DROP)
            total += scale * part
            sum2 += more
        tl.store(spot, total.to(grad.dtype.element_ty), mask=both)
    add_a(a_grad, sum0 * scale, rank_at, at, ok, 0, RANK, inner)
    if MEMBERS > 1:
        add_a(a_grad, sum1 * scale, rank_at, at, ok, 1, RANK, inner)
    if MEMBERS > 2:
        add_a(a_grad, sum2 * scale, rank_at, at, ok, 2, RANK, inner)


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
