"""Triton kernels of causal attention inside the samples of a packed window.

A window is attended as one sequence in which row i may look back to the beginning of its sample, so
that the work follows the samples' lengths, the grid only the window's, and the host need not know
either. (A kernel with one grid row a sample starts as many blocks for every sample as the longest
needs; with rows of code, most of them do nothing.) Head sizes that are no power of two are taken in
two pieces, 80 as 64 + 16, where padding to 128 would waste a third of the matrix units.
"""

# ruff: noqa: N803, PLR0915 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _rows(base, row, stride, at, row_ok, size, start: tl.constexpr):
    """[rows, block] of one head from feature `start` on, zeros outside."""
    ok = row_ok[:, None] & (start + at < size)[None, :]
    place = base + row.to(tl.int64)[:, None] * stride + (start + at)[None, :]
    return tl.load(place, mask=ok, other=0.0)


@triton.jit
def _store(base, row, stride, at, row_ok, size, value, start: tl.constexpr):
    ok = row_ok[:, None] & (start + at < size)[None, :]
    place = base + row.to(tl.int64)[:, None] * stride + (start + at)[None, :]
    tl.store(place, value.to(base.dtype.element_ty), mask=ok)


@triton.jit
def _scores(q0, k0, q1, k1, D1: tl.constexpr):
    s = tl.dot(q0, tl.trans(k0), input_precision="ieee")
    if D1 > 0:
        s += tl.dot(q1, tl.trans(k1), input_precision="ieee")
    return s


@triton.jit(do_not_specialize=["tokens"])
def attention(
    qkv, starts, out, lse, stride, out_stride, tokens, scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr,
    D0: tl.constexpr, D1: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """A block of rows of one query head a program; `scale` is in powers of two."""
    first = tl.program_id(0) * BM
    head = tl.program_id(1)
    row = first + tl.arange(0, BM)
    row_ok = row < tokens
    d0 = tl.arange(0, D0)
    d1 = tl.arange(0, D1 if D1 > 0 else 16)
    q_at = qkv + head * SIZE
    k_at = qkv + (QUERIES + head // (QUERIES // KEYS)) * SIZE
    v_at = k_at + KEYS * SIZE
    q0 = _rows(q_at, row, stride, d0, row_ok, SIZE, 0)
    q1 = q0
    sum1 = tl.zeros((BM, 16), tl.float32)
    if D1 > 0:
        q1 = _rows(q_at, row, stride, d1, row_ok, SIZE, D0)
        sum1 = tl.zeros((BM, D1), tl.float32)
    begin = tl.load(starts + row, mask=row_ok, other=0)
    high = tl.full((BM,), -1.0e30, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    sum0 = tl.zeros((BM, D0), tl.float32)
    low = tl.load(starts + first) // BN * BN
    for n in range(low, tl.minimum(first + BM, tokens), BN):
        col = n + tl.arange(0, BN)
        col_ok = col < tokens
        k0 = _rows(k_at, col, stride, d0, col_ok, SIZE, 0)
        k1 = k0
        if D1 > 0:
            k1 = _rows(k_at, col, stride, d1, col_ok, SIZE, D0)
        s = _scores(q0, k0, q1, k1, D1) * scale
        seen = (col[None, :] <= row[:, None]) & (col[None, :] >= begin[:, None])
        s = tl.where(seen, s, -1.0e30)
        top = tl.maximum(high, tl.max(s, 1))
        p = tl.where(seen, tl.exp2(s - top[:, None]), 0.0)
        fade = tl.exp2(high - top)
        total = total * fade + tl.sum(p, 1)
        v0 = _rows(v_at, col, stride, d0, col_ok, SIZE, 0)
        p = p.to(v0.dtype)
        sum0 = sum0 * fade[:, None] + tl.dot(p, v0, input_precision="ieee")
        if D1 > 0:
            v1 = _rows(v_at, col, stride, d1, col_ok, SIZE, D0)
            sum1 = sum1 * fade[:, None] + tl.dot(p, v1, input_precision="ieee")
        high = top
    total = tl.where(row_ok, total, 1.0)
    o_at = out + head * SIZE
    _store(o_at, row, out_stride, d0, row_ok, SIZE, sum0 / total[:, None], 0)
    if D1 > 0:
        _store(o_at, row, out_stride, d1, row_ok, SIZE, sum1 / total[:, None], D0)
    tl.store(lse + head * tokens + row, high + tl.log2(total), mask=row_ok)


@triton.jit(do_not_specialize=["tokens"])
def attention_delta(
    out, grad, delta, out_stride, grad_stride, tokens,
    SIZE: tl.constexpr, UP: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Row sums of output times its gradient."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    head = tl.program_id(1)
    row_ok = row < tokens
    at = tl.arange(0, UP)
    o = _rows(out + head * SIZE, row, out_stride, at, row_ok, SIZE, 0).to(tl.float32)
    g = _rows(grad + head * SIZE, row, grad_stride, at, row_ok, SIZE, 0).to(tl.float32)
    tl.store(delta + head * tokens + row, tl.sum(o * g, 1), mask=row_ok)


@triton.jit(do_not_specialize=["tokens"])
def attention_grad_q(
    qkv, starts, grad, lse, delta, to, stride, grad_stride, to_stride, tokens, scale, base_scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr,
    D0: tl.constexpr, D1: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of queries, over the keys that it looked at."""
    first = tl.program_id(0) * BM
    head = tl.program_id(1)
    row = first + tl.arange(0, BM)
    row_ok = row < tokens
    d0 = tl.arange(0, D0)
    d1 = tl.arange(0, D1 if D1 > 0 else 16)
    k_at = qkv + (QUERIES + head // (QUERIES // KEYS)) * SIZE
    v_at = k_at + KEYS * SIZE
    q0 = _rows(qkv + head * SIZE, row, stride, d0, row_ok, SIZE, 0)
    g0 = _rows(grad + head * SIZE, row, grad_stride, d0, row_ok, SIZE, 0)
    q1, g1 = q0, g0
    sum0 = tl.zeros((BM, D0), tl.float32)
    sum1 = tl.zeros((BM, 16), tl.float32)
    if D1 > 0:
        q1 = _rows(qkv + head * SIZE, row, stride, d1, row_ok, SIZE, D0)
        g1 = _rows(grad + head * SIZE, row, grad_stride, d1, row_ok, SIZE, D0)
        sum1 = tl.zeros((BM, D1), tl.float32)
    begin = tl.load(starts + row, mask=row_ok, other=0)
    norm = tl.load(lse + head * tokens + row, mask=row_ok, other=0.0)
    mean = tl.load(delta + head * tokens + row, mask=row_ok, other=0.0)
    low = tl.load(starts + first) // BN * BN
    for n in range(low, tl.minimum(first + BM, tokens), BN):
        col = n + tl.arange(0, BN)
        col_ok = col < tokens
        k0 = _rows(k_at, col, stride, d0, col_ok, SIZE, 0)
        v0 = _rows(v_at, col, stride, d0, col_ok, SIZE, 0)
        k1, v1 = k0, v0
        if D1 > 0:
            k1 = _rows(k_at, col, stride, d1, col_ok, SIZE, D0)
            v1 = _rows(v_at, col, stride, d1, col_ok, SIZE, D0)
        s = _scores(q0, k0, q1, k1, D1) * scale
        seen = (col[None, :] <= row[:, None]) & (col[None, :] >= begin[:, None])
        p = tl.where(seen, tl.exp2(s - norm[:, None]), 0.0)
        ds = (p * (_scores(g0, v0, g1, v1, D1) - mean[:, None])).to(k0.dtype)
        sum0 += tl.dot(ds, k0, input_precision="ieee")
        if D1 > 0:
            sum1 += tl.dot(ds, k1, input_precision="ieee")
    to_at = to + head * SIZE
    _store(to_at, row, to_stride, d0, row_ok, SIZE, sum0 * base_scale, 0)
    if D1 > 0:
        _store(to_at, row, to_stride, d1, row_ok, SIZE, sum1 * base_scale, D0)


@triton.jit(do_not_specialize=["tokens"])
def attention_grad_kv(
    qkv, starts, ends, grad, lse, delta, to, stride, grad_stride, to_stride, tokens, scale,
    base_scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr,
    D0: tl.constexpr, D1: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of keys and values, over the queries that looked at it."""
    first = tl.program_id(0) * BN
    key = tl.program_id(1)
    col = first + tl.arange(0, BN)
    col_ok = col < tokens
    d0 = tl.arange(0, D0)
    d1 = tl.arange(0, D1 if D1 > 0 else 16)
    k_at = qkv + (QUERIES + key) * SIZE
    v_at = k_at + KEYS * SIZE
    k0 = _rows(k_at, col, stride, d0, col_ok, SIZE, 0)
    v0 = _rows(v_at, col, stride, d0, col_ok, SIZE, 0)
    k1, v1 = k0, v0
    dk0 = tl.zeros((BN, D0), tl.float32)
    dv0 = tl.zeros((BN, D0), tl.float32)
    dk1 = tl.zeros((BN, 16), tl.float32)
    dv1 = tl.zeros((BN, 16), tl.float32)
    if D1 > 0:
        k1 = _rows(k_at, col, stride, d1, col_ok, SIZE, D0)
        v1 = _rows(v_at, col, stride, d1, col_ok, SIZE, D0)
        dk1 = tl.zeros((BN, D1), tl.float32)
        dv1 = tl.zeros((BN, D1), tl.float32)
    end = tl.load(ends + tl.minimum(first + BN, tokens) - 1)
    for head in range(key * (QUERIES // KEYS), (key + 1) * (QUERIES // KEYS)):
        q_at = qkv + head * SIZE
        g_at = grad + head * SIZE
        for m in range(first // BM * BM, end, BM):
            row = m + tl.arange(0, BM)
            row_ok = row < tokens
            q0 = _rows(q_at, row, stride, d0, row_ok, SIZE, 0)
            g0 = _rows(g_at, row, grad_stride, d0, row_ok, SIZE, 0)
            q1, g1 = q0, g0
            if D1 > 0:
                q1 = _rows(q_at, row, stride, d1, row_ok, SIZE, D0)
                g1 = _rows(g_at, row, grad_stride, d1, row_ok, SIZE, D0)
            begin = tl.load(starts + row, mask=row_ok, other=0)
            norm = tl.load(lse + head * tokens + row, mask=row_ok, other=0.0)
            mean = tl.load(delta + head * tokens + row, mask=row_ok, other=0.0)
            s = _scores(q0, k0, q1, k1, D1) * scale
            seen = (col[None, :] <= row[:, None]) & (col[None, :] >= begin[:, None])
            seen = seen & row_ok[:, None]
            p = tl.where(seen, tl.exp2(s - norm[:, None]), 0.0)
            ds = (p * (_scores(g0, v0, g1, v1, D1) - mean[:, None])).to(q0.dtype)
            p = p.to(q0.dtype)
            dv0 += tl.dot(tl.trans(p), g0, input_precision="ieee")
            dk0 += tl.dot(tl.trans(ds), q0, input_precision="ieee")
            if D1 > 0:
                dv1 += tl.dot(tl.trans(p), g1, input_precision="ieee")
                dk1 += tl.dot(tl.trans(ds), q1, input_precision="ieee")
    dk_at = to + (QUERIES + key) * SIZE
    dv_at = dk_at + KEYS * SIZE
    _store(dk_at, col, to_stride, d0, col_ok, SIZE, dk0 * base_scale, 0)
    _store(dv_at, col, to_stride, d0, col_ok, SIZE, dv0, 0)
    if D1 > 0:
        _store(dk_at, col, to_stride, d1, col_ok, SIZE, dk1 * base_scale, D0)
        _store(dv_at, col, to_stride, d1, col_ok, SIZE, dv1, D0)
