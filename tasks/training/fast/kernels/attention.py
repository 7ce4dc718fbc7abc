"""Triton kernels of causal self-attention within the samples of a packed window (FlashAttention-2).

Notation: `row` is the token that attends, `col` the token attended to; BM and BN are their tile
sizes. `qkv` is [tokens, (QUERIES + 2 * KEYS) * SIZE], SIZE features per head; Q_STEP, K_START,
KV_STEP and V_START are the places of heads in it: q of head h at h * Q_STEP, k at
K_START + h * KV_STEP. QUERIES / KEYS query heads share a key head (grouped-query attention).
`lse` and `delta` are float32[QUERIES, tokens]. D0 and D1: see `heads`.

Variable lengths: a window is one sequence in which row i attends to columns starts[i]..i, where
starts[i] is the first token of its sample, or of its sliding window if that starts later; column i
is attended to by the rows i..ends[i] - 1. Both never decrease, so the first row of
a tile has the earliest start and the last column of a tile the latest end: they bound a program's
loop. Work follows the samples' lengths, the grid only the window's, and the host need not know the
lengths. (With one grid row per sample, as common for variable lengths, every sample starts as many
programs as the longest one needs, and with short samples most of them do nothing.)

Exponentials have base 2, which the hardware computes directly: `scale` is SIZE^-0.5 * log2(e), and
`lse` is a base-2 logarithm. Products accumulate in float32; probabilities and score gradients are
rounded to the input's precision (bfloat16) before they enter a product. "ieee" keeps float32 inputs
in full precision instead of TF32; it has no effect on bfloat16.

CAP: soft cap of the scores, times log2(e) as they are; 0 without one.
"""

# ruff: noqa: N803 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl

from tasks.training.fast.kernels.heads import load_head, load_rows, product, store_head
from tasks.training.fast.kernels.rowwise import tanh


@triton.jit
def _scores(a0, b0, a1, b1, scale, D1: tl.constexpr, CAP: tl.constexpr):
    """Scaled and capped scores of rows and columns in base 2."""
    s = product(a0, b0, a1, b1, D1) * scale
    if CAP > 0:
        s = CAP * tanh(s / CAP)
    return s


@triton.jit
def _visible(row, col, begin):
    """Whether a row attends to a column: causal, and from its sample's first token on."""
    return (col[None, :] <= row[:, None]) & (col[None, :] >= begin[:, None])


# tokens differ from window to window: specializing on them (1, multiples of 16) would recompile
@triton.jit(do_not_specialize=["tokens"])
def attention(
    qkv, starts, out, lse, stride, out_stride, tokens, scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr,
    Q_STEP: tl.constexpr, K_START: tl.constexpr, KV_STEP: tl.constexpr, V_START: tl.constexpr,
    D0: tl.constexpr, D1: tl.constexpr, CAP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Forward pass: one tile of rows of one query head per program, with an online softmax."""
    first = tl.program_id(0) * BM
    head = tl.program_id(1)
    row = first + tl.arange(0, BM)
    row_ok = row < tokens
    d0 = tl.arange(0, D0)
    d1 = tl.arange(0, D1 if D1 > 0 else 16)
    k_at = qkv + K_START + head // (QUERIES // KEYS) * KV_STEP
    v_at = qkv + V_START + head // (QUERIES // KEYS) * KV_STEP
    q0, q1 = load_head(qkv + head * Q_STEP, row, stride, d0, d1, row_ok, SIZE, D0, D1)
    begin = tl.load(starts + row, mask=row_ok, other=0)
    # running maximum, sum and output; -1e30 and not -inf, as a tile of which a row sees nothing
    # would give inf - inf
    high = tl.full((BM,), -1.0e30, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    sum0 = tl.zeros((BM, D0), tl.float32)
    sum1 = tl.zeros((BM, D1 if D1 > 0 else 16), tl.float32)
    low = tl.load(starts + first) // BN * BN
    for n in range(low, tl.minimum(first + BM, tokens), BN):
        col = n + tl.arange(0, BN)
        col_ok = col < tokens
        k0, k1 = load_head(k_at, col, stride, d0, d1, col_ok, SIZE, D0, D1)
        s = _scores(q0, k0, q1, k1, scale, D1, CAP)
        seen = _visible(row, col, begin)
        s = tl.where(seen, s, -1.0e30)
        top = tl.maximum(high, tl.max(s, 1))
        # masked again: where a row has seen nothing yet, s - top is 0 and exp2 gives 1
        p = tl.where(seen, tl.exp2(s - top[:, None]), 0.0)
        fade = tl.exp2(high - top)  # rescales what was summed under the former maximum
        total = total * fade + tl.sum(p, 1)
        v0, v1 = load_head(v_at, col, stride, d0, d1, col_ok, SIZE, D0, D1)
        p = p.to(v0.dtype)
        sum0 = sum0 * fade[:, None] + tl.dot(p, v0, input_precision="ieee")
        if D1 > 0:
            sum1 = sum1 * fade[:, None] + tl.dot(p, v1, input_precision="ieee")
        high = top
    total = tl.where(row_ok, total, 1.0)  # rows past the window saw nothing: no division by 0
    sum0, sum1 = sum0 / total[:, None], sum1 / total[:, None]
    store_head(out + head * SIZE, row, out_stride, d0, d1, row_ok, SIZE, sum0, sum1, D0, D1)
    tl.store(lse + head * tokens + row, high + tl.log2(total), mask=row_ok)


@triton.jit(do_not_specialize=["tokens"])
def attention_delta(
    out, grad, delta, out_stride, grad_stride, tokens,
    SIZE: tl.constexpr, UP: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Row sums of output times its gradient, which both backward kernels subtract.

    Nothing is multiplied here, so features are padded to UP, the next power of two.
    """
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    head = tl.program_id(1)
    row_ok = row < tokens
    at = tl.arange(0, UP)
    o = load_rows(out + head * SIZE, row, out_stride, at, row_ok, SIZE, 0).to(tl.float32)
    g = load_rows(grad + head * SIZE, row, grad_stride, at, row_ok, SIZE, 0).to(tl.float32)
    tl.store(delta + head * tokens + row, tl.sum(o * g, 1), mask=row_ok)


@triton.jit
def _score_grads(
    q0, k0, q1, k1, g0, v0, g1, v1, seen, norm, mean, scale, D1: tl.constexpr, CAP: tl.constexpr
):  # fmt: skip
    """Probabilities p, recomputed, and the gradient of the scores; both [rows, columns], float32.

    With lse (`norm`) saved, p = exp2(s - lse) needs no second softmax. The gradient of a score is
    p (dp - delta), where dp = g v^T is the gradient of p and delta (`mean`) its mean under p.
    """
    s = _scores(q0, k0, q1, k1, scale, D1, CAP)
    p = tl.where(seen, tl.exp2(s - norm[:, None]), 0.0)
    ds = p * (product(g0, v0, g1, v1, D1) - mean[:, None])
    if CAP > 0:
        ds *= 1.0 - (s / CAP) * (s / CAP)
    return p, ds


@triton.jit(do_not_specialize=["tokens"])
def attention_grad_q(
    qkv, starts, grad, lse, delta, to, stride, grad_stride, to_stride, tokens, scale, base_scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr,
    Q_STEP: tl.constexpr, K_START: tl.constexpr, KV_STEP: tl.constexpr, V_START: tl.constexpr,
    D0: tl.constexpr, D1: tl.constexpr, CAP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Gradient of one tile of queries of one head, over the keys that it attends to."""
    first = tl.program_id(0) * BM
    head = tl.program_id(1)
    row = first + tl.arange(0, BM)
    row_ok = row < tokens
    d0 = tl.arange(0, D0)
    d1 = tl.arange(0, D1 if D1 > 0 else 16)
    k_at = qkv + K_START + head // (QUERIES // KEYS) * KV_STEP
    v_at = qkv + V_START + head // (QUERIES // KEYS) * KV_STEP
    q0, q1 = load_head(qkv + head * Q_STEP, row, stride, d0, d1, row_ok, SIZE, D0, D1)
    g0, g1 = load_head(grad + head * SIZE, row, grad_stride, d0, d1, row_ok, SIZE, D0, D1)
    sum0 = tl.zeros((BM, D0), tl.float32)
    sum1 = tl.zeros((BM, D1 if D1 > 0 else 16), tl.float32)
    begin = tl.load(starts + row, mask=row_ok, other=0)
    norm = tl.load(lse + head * tokens + row, mask=row_ok, other=0.0)
    mean = tl.load(delta + head * tokens + row, mask=row_ok, other=0.0)
    low = tl.load(starts + first) // BN * BN
    for n in range(low, tl.minimum(first + BM, tokens), BN):
        col = n + tl.arange(0, BN)
        col_ok = col < tokens
        k0, k1 = load_head(k_at, col, stride, d0, d1, col_ok, SIZE, D0, D1)
        v0, v1 = load_head(v_at, col, stride, d0, d1, col_ok, SIZE, D0, D1)
        seen = _visible(row, col, begin)
        _, ds = _score_grads(q0, k0, q1, k1, g0, v0, g1, v1, seen, norm, mean, scale, D1, CAP)
        ds = ds.to(k0.dtype)
        sum0 += tl.dot(ds, k0, input_precision="ieee")
        if D1 > 0:
            sum1 += tl.dot(ds, k1, input_precision="ieee")
    sum0, sum1 = sum0 * base_scale, sum1 * base_scale
    store_head(to + head * Q_STEP, row, to_stride, d0, d1, row_ok, SIZE, sum0, sum1, D0, D1)


@triton.jit(do_not_specialize=["tokens"])
def attention_grad_kv(
    qkv, starts, ends, grad, lse, delta, to, stride, grad_stride, to_stride, tokens, scale,
    base_scale,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr,
    Q_STEP: tl.constexpr, K_START: tl.constexpr, KV_STEP: tl.constexpr, V_START: tl.constexpr,
    D0: tl.constexpr, D1: tl.constexpr, CAP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Gradients of one tile of keys and values of one key head, over the queries that attend to it.

    The program sums over all query heads that share the key head, so nothing is added atomically.
    """
    first = tl.program_id(0) * BN
    key = tl.program_id(1)
    col = first + tl.arange(0, BN)
    col_ok = col < tokens
    d0 = tl.arange(0, D0)
    d1 = tl.arange(0, D1 if D1 > 0 else 16)
    k_at = K_START + key * KV_STEP
    v_at = V_START + key * KV_STEP
    k0, k1 = load_head(qkv + k_at, col, stride, d0, d1, col_ok, SIZE, D0, D1)
    v0, v1 = load_head(qkv + v_at, col, stride, d0, d1, col_ok, SIZE, D0, D1)
    dk0 = tl.zeros((BN, D0), tl.float32)
    dv0 = tl.zeros((BN, D0), tl.float32)
    dk1 = tl.zeros((BN, D1 if D1 > 0 else 16), tl.float32)
    dv1 = tl.zeros((BN, D1 if D1 > 0 else 16), tl.float32)
    end = tl.load(ends + tl.minimum(first + BN, tokens) - 1)
    for head in range(key * (QUERIES // KEYS), (key + 1) * (QUERIES // KEYS)):
        q_at = qkv + head * Q_STEP
        g_at = grad + head * SIZE
        for m in range(first // BM * BM, end, BM):
            row = m + tl.arange(0, BM)
            row_ok = row < tokens
            q0, q1 = load_head(q_at, row, stride, d0, d1, row_ok, SIZE, D0, D1)
            g0, g1 = load_head(g_at, row, grad_stride, d0, d1, row_ok, SIZE, D0, D1)
            begin = tl.load(starts + row, mask=row_ok, other=0)
            norm = tl.load(lse + head * tokens + row, mask=row_ok, other=0.0)
            mean = tl.load(delta + head * tokens + row, mask=row_ok, other=0.0)
            # rows past the window load begin 0 and lse 0: without row_ok they would count as seen
            seen = _visible(row, col, begin) & row_ok[:, None]
            p, ds = _score_grads(q0, k0, q1, k1, g0, v0, g1, v1, seen, norm, mean, scale, D1, CAP)
            ds = ds.to(q0.dtype)
            p = p.to(q0.dtype)
            dv0 += tl.dot(tl.trans(p), g0, input_precision="ieee")
            dk0 += tl.dot(tl.trans(ds), q0, input_precision="ieee")
            if D1 > 0:
                dv1 += tl.dot(tl.trans(p), g1, input_precision="ieee")
                dk1 += tl.dot(tl.trans(ds), q1, input_precision="ieee")
    dk0, dk1 = dk0 * base_scale, dk1 * base_scale
    store_head(to + k_at, col, to_stride, d0, d1, col_ok, SIZE, dk0, dk1, D0, D1)
    store_head(to + v_at, col, to_stride, d0, d1, col_ok, SIZE, dv0, dv1, D0, D1)
