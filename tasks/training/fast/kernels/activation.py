"""Triton kernels of the MLP's activation, the LoRA of its output, and its input kept in 8 bit.

The input is gate and up [tokens, 2 F], of which act(gate) * up is computed; not GATED: [tokens, F],
of which act is. In the latter case "gate" is the whole input. ACT is an index in `ACTIVATIONS`.

8 bit: GROUP values of a row share a scale, their largest magnitude / 127. Kept gate and up take
half of the memory; what the backward pass reads of them differs by 0.4 % of a group's largest
value at most.
"""

# ruff: noqa: N803, PLR0912, PLR0915 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them. A kernel takes pointers,
# strides and sizes one by one: each argument is specialized alone (a multiple of 16, a constant),
# and not every supported version of Triton takes a tuple of them.
# mypy: ignore-errors

import triton
import triton.language as tl

from tasks.training.fast.kernels.lora import (
    add_a,
    back_of,
    blank,
    down,
    hash_bits,
    kept,
    load_a,
    store_both,
)
from tasks.training.fast.kernels.rotation import nearest

GROUP = tl.constexpr(64)
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu2")


@triton.jit
def _share(x, ACT: tl.constexpr):
    """What x is multiplied by: its activation is x times that."""
    if ACT == 0:
        return tl.sigmoid(x)
    if ACT == 1:
        return 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)
    if ACT == 2:  # (1 + tanh(z)) / 2 = sigmoid(2 z)
        return tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    return tl.maximum(x, 0.0)


@triton.jit
def _slope(x, share, ACT: tl.constexpr):
    """The activation's derivative; for silu s (1 + x (1 - s)) with s = sigmoid(x)."""
    if ACT == 0:
        return share * (1.0 + x * (1.0 - share))
    if ACT == 1:
        return share + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    if ACT == 2:
        inner = 1.5957691216057308 * (1.0 + 0.134145 * x * x)
        return share * (1.0 + x * (1.0 - share) * inner)
    return 2.0 * share


@triton.jit
def _pack(
    small, scales, values, place, start, line, both, row_ok, inner, BLOCK: tl.constexpr
):  # fmt: skip
    """Store a tile [rows, BLOCK] from column `start` on in 8 bit, with its scales."""
    count: tl.constexpr = BLOCK // GROUP
    parts = tl.reshape(values, (values.shape[0], count, GROUP))
    scale = tl.maximum(tl.max(tl.abs(parts), 2) / 127.0, 1e-30)
    q = tl.reshape(nearest(parts * (1.0 / scale)[:, :, None]), (values.shape[0], BLOCK))
    tl.store(small + place, q.to(tl.int8), mask=both)
    part = start // GROUP + tl.arange(0, count)
    ok = row_ok[:, None] & (part * GROUP < inner)[None, :]
    tl.store(scales + line + part[None, :], scale, mask=ok)


@triton.jit
def _unpack(small, scales, place, start, line, both, row_ok, inner, BLOCK: tl.constexpr):
    """A tile [rows, BLOCK] of packed values from column `start` on, float32."""
    count: tl.constexpr = BLOCK // GROUP
    q = tl.load(small + place, mask=both, other=0).to(tl.float32)
    part = start // GROUP + tl.arange(0, count)
    ok = row_ok[:, None] & (part * GROUP < inner)[None, :]
    scale = tl.load(scales + line + part[None, :], mask=ok, other=0.0)
    parts = tl.reshape(q, (q.shape[0], count, GROUP)) * scale[:, :, None]
    return tl.reshape(parts, (q.shape[0], BLOCK))


@triton.jit(do_not_specialize=["tokens", "place", "threshold"])
def activate(
    gate_up, out, a, side, seeds, small, scales, stride, out_stride, tokens, inner, width, scale,
    place, threshold,
    RANK: tl.constexpr, PADDED: tl.constexpr, BITS: tl.constexpr, DROP: tl.constexpr,
    ACT: tl.constexpr, GATED: tl.constexpr, PACK: tl.constexpr, TAIL: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The activation and, of its output, `lora_in` with one member.

    The output is not read again for LoRA. RANK 0: no LoRA. PACK: gate and up are stored in 8 bit.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_ok = row < tokens
    row_at = row.to(tl.int64)
    rank_at = tl.arange(0, PADDED)
    seed = tl.load(seeds + place)
    first = tl.zeros((ROWS, PADDED), tl.float32)
    groups = tl.cdiv(inner, GROUP)  # of gate; those of up follow
    count: tl.constexpr = 2 if GATED else 1
    for start in range(0, inner, BLOCK):
        at = start + tl.arange(0, BLOCK)
        ok = at < inner
        both = row_ok[:, None] & ok[None, :]
        spot = gate_up + row_at[:, None] * stride + at[None, :]
        gate = tl.load(spot, mask=both, other=0.0).to(tl.float32)
        values = gate * _share(gate, ACT)
        if GATED:
            up = tl.load(spot + inner, mask=both, other=0.0).to(tl.float32)
            values *= up
        values = values.to(out.dtype.element_ty)
        tl.store(out + row_at[:, None] * out_stride + at[None, :], values, mask=both)
        if PACK:
            to = row_at[:, None] * (count * inner) + at[None, :]
            line = row_at[:, None] * (count * groups)
            _pack(small, scales, gate, to, start, line, both, row_ok, inner, BLOCK)
            if GATED:
                to += inner
                _pack(small, scales, up, to, start, line + groups, both, row_ok, inner, BLOCK)
        if RANK > 0:
            if DROP:
                h = hash_bits(row[:, None] * inner + at[None, :], seed)
                values = tl.where(kept(h, 0, BITS, threshold), values, 0.0)
            first += down(values, a, rank_at, at, ok, 0, RANK, inner)
    if RANK > 0:
        blank(out, row, row_ok, out_stride, inner, width, RANK, TAIL)
        behind = out + row_at[:, None] * out_stride + inner + rank_at[None, :]
        fits = row_ok[:, None] & (rank_at < RANK)[None, :]
        store_both(behind, side + row_at[:, None] * RANK + rank_at[None, :], first * scale, fits)


@triton.jit
def _column_sum(slope, u, row_at, row_ok, stride, rank_at, RANK: tl.constexpr):
    """slope^T u of a tile [rows, BLOCK]: B's gradient, [BLOCK, padded rank]."""
    fits = row_ok[:, None] & (rank_at < RANK)[None, :]
    side = tl.load(u + row_at[:, None] * stride + rank_at[None, :], mask=fits, other=0.0)
    return tl.dot(tl.trans(slope), side, input_precision="ieee")


@triton.jit
def _add_b(b_grad, value, rank_at, at, ok, RANK: tl.constexpr):
    place = b_grad + at[:, None] * RANK + rank_at[None, :]
    tl.atomic_add(place, value, mask=ok[:, None] & (rank_at < RANK)[None, :], sem="relaxed")


@triton.jit(do_not_specialize=["tokens", "place", "threshold", "steps"])
def activate_backward(
    gate_up, grad, a, a_grad, seeds, small, scales, u, gate_b, up_b, stride, grad_stride, u_stride,
    tokens, inner, scale, place, threshold, steps,
    RANK: tl.constexpr, PADDED: tl.constexpr, BITS: tl.constexpr, DROP: tl.constexpr,
    ACT: tl.constexpr, GATED: tl.constexpr, PACKED: tl.constexpr, GATE: tl.constexpr,
    UP: tl.constexpr, B_RANK: tl.constexpr, B_PADDED: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """`lora_in_backward` with one member, then the input's gradient, in one pass over memory.

    Writes the gradients of gate and up into `gate_up`; reads the two from there, or with PACKED
    from their 8-bit copy. The activation, which A's gradient needs, is computed again; the
    gradient of the output with A's part in it is never stored. Tiles as in `lora_in_backward`.

    Also adds the gradients of gate's and up's B, which need the same tiles (GATE, UP: columns of u,
    -1 without LoRA).
    """
    first = tl.program_id(0) * BLOCK
    at = first + tl.arange(0, BLOCK)
    ok = at < inner
    seed = tl.load(seeds + place)
    rank_at = tl.arange(0, PADDED)
    b_at = tl.arange(0, B_PADDED)
    kind = gate_up.dtype.element_ty
    a0 = tl.zeros((PADDED, BLOCK), kind)
    if RANK > 0:
        a0 = load_a(a, rank_at, at, ok, 0, RANK, inner)
    groups = tl.cdiv(inner, GROUP)
    count: tl.constexpr = 2 if GATED else 1
    sum0 = tl.zeros((PADDED, BLOCK), tl.float32)
    sum_gate = tl.zeros((BLOCK, B_PADDED), tl.float32)
    sum_up = tl.zeros((BLOCK, B_PADDED), tl.float32)
    begin = tl.program_id(1) * steps * ROWS
    for start in range(begin, tl.minimum(begin + steps * ROWS, tokens), ROWS):
        row = start + tl.arange(0, ROWS)
        row_ok = row < tokens
        row_at = row.to(tl.int64)
        both = row_ok[:, None] & ok[None, :]
        spot = gate_up + row_at[:, None] * stride + at[None, :]
        if PACKED:
            source = row_at[:, None] * (count * inner) + at[None, :]
            line = row_at[:, None] * (count * groups)
            gate = _unpack(small, scales, source, first, line, both, row_ok, inner, BLOCK)
        else:
            gate = tl.load(spot, mask=both, other=0.0).to(tl.float32)
        share = _share(gate, ACT)
        # values: the output act(gate) * up; gate_slope and up_slope: its derivatives
        values = gate * share
        gate_slope = _slope(gate, share, ACT)
        up_slope = values
        if GATED:
            if PACKED:
                source += inner
                line += groups
                up = _unpack(small, scales, source, first, line, both, row_ok, inner, BLOCK)
            else:
                up = tl.load(spot + inner, mask=both, other=0.0).to(tl.float32)
            values *= up
            gate_slope *= up
        # slope: the gradient of the output
        line = grad + row_at[:, None] * grad_stride
        slope = tl.load(line + at[None, :], mask=both, other=0.0).to(tl.float32)
        if RANK > 0:
            # v: the gradient of LoRA's columns; A's part is added to the output's gradient
            values = values.to(kind)
            some = row_ok[:, None] & (rank_at < RANK)[None, :]
            v = tl.load(line + inner + rank_at[None, :], mask=some, other=0.0)
            h = tl.zeros((ROWS, BLOCK), tl.uint32)
            if DROP:
                h = hash_bits(row[:, None] * inner + at[None, :], seed)
            part, more = back_of(kept(h, 0, BITS, threshold), values, v, a0, DROP)
            slope += scale * part
            sum0 += more
        # in place: this program has read its tiles of gate and up, and no other reads them
        gate_slope = (slope * gate_slope).to(kind)
        tl.store(spot, gate_slope, mask=both)
        if GATED:
            up_slope = (slope * up_slope).to(kind)
            tl.store(spot + inner, up_slope, mask=both)
        if GATE >= 0:
            sum_gate += _column_sum(gate_slope, u + GATE, row_at, row_ok, u_stride, b_at, B_RANK)
        if UP >= 0:
            sum_up += _column_sum(up_slope, u + UP, row_at, row_ok, u_stride, b_at, B_RANK)
    if RANK > 0:
        add_a(a_grad, sum0 * scale, rank_at, at, ok, 0, RANK, inner)
    if GATE >= 0:
        _add_b(gate_b, sum_gate, b_at, at, ok, B_RANK)
    if UP >= 0:
        _add_b(up_b, sum_up, b_at, at, ok, B_RANK)
