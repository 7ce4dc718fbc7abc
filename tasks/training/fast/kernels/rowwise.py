"""Triton kernels of one row per program: norms, rotary embedding, loss."""

# ruff: noqa: N803 - capitals are compile-time constants, and a kernel can't be cut up
# Triton compiles these functions itself; Python's types do not reach them
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """The hyperbolic tangent by the exponential, which the hardware computes directly."""
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _normalized(x, ok, inner, eps, LAYER_NORM: tl.constexpr):
    """Normalized rows and one over the deviation of each; `x` points to the rows."""
    values = tl.load(x, mask=ok, other=0.0).to(tl.float32)
    if LAYER_NORM:
        # masked again, as subtracting the mean makes the padding nonzero
        values = tl.where(ok, values - tl.sum(values, 1)[:, None] / inner, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(values * values, 1)[:, None] / inner + eps)
    return values * rstd, rstd


@triton.jit
def norm(
    x, weight, bias, out, stream, x_stride, x_head, out_stride, out_head, stream_stride,
    weight_head, heads, inner, eps,
    LAYER_NORM: tl.constexpr, HAS_BIAS: tl.constexpr, ADD: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """LayerNorm or RMSNorm of one row, or of TILE heads of it, per program; BLOCK covers a head.

    ADD: a row of `stream` is added, which saves writing and reading the norm's output.
    A program for each head of a hundred values would take longer to start than to run.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
    at = tl.arange(0, BLOCK)[None, :]
    ok = (at < inner) & (head < heads)
    hat, _ = _normalized(x + row * x_stride + head * x_head + at, ok, inner, eps, LAYER_NORM)
    place = head * weight_head + at
    result = hat * tl.load(weight + place, mask=ok, other=0.0).to(tl.float32)
    if HAS_BIAS:
        result += tl.load(bias + place, mask=ok, other=0.0).to(tl.float32)
    if ADD:
        result += tl.load(stream + row * stream_stride + at, mask=ok, other=0.0).to(tl.float32)
    to = out + row * out_stride + head * out_head + at
    tl.store(to, result.to(out.dtype.element_ty), mask=ok)


@triton.jit
def norm_backward(
    x, weight, grad, to, x_stride, x_head, grad_stride, grad_head, to_stride, to_head, weight_head,
    heads, inner, eps,
    LAYER_NORM: tl.constexpr, ADD: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The input's gradient, added to `to` or (not ADD) written there; programs as of `norm`.

    dx = rstd (g - hat mean(g hat)), minus mean(g) for LayerNorm, with g = grad * weight. Weight and
    bias are frozen, so they need no gradient.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * TILE + tl.arange(0, TILE)[:, None]
    at = tl.arange(0, BLOCK)[None, :]
    ok = (at < inner) & (head < heads)
    hat, rstd = _normalized(x + row * x_stride + head * x_head + at, ok, inner, eps, LAYER_NORM)
    slope = tl.load(grad + row * grad_stride + head * grad_head + at, mask=ok, other=0.0)
    slope = slope.to(tl.float32)
    slope *= tl.load(weight + head * weight_head + at, mask=ok, other=0.0).to(tl.float32)
    result = slope - hat * (tl.sum(slope * hat, 1)[:, None] / inner)
    if LAYER_NORM:
        result -= tl.sum(slope, 1)[:, None] / inner
    result *= rstd
    place = to + row * to_stride + head * to_head + at
    if ADD:
        result += tl.load(place, mask=ok, other=0.0).to(tl.float32)
    tl.store(place, result.to(to.dtype.element_ty), mask=ok)


@triton.jit
def rope(
    qkv, cos, sin, stride, sign, SIZE: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
    PAIRS: tl.constexpr, GROUPED: tl.constexpr, HEADS_UP: tl.constexpr, HALF_UP: tl.constexpr,
):  # fmt: skip
    """Rotates q and k in place, one token per program.

    q's and k's heads are adjacent; GROUPED: after each two of them (q and k of one head) there is a
    v. Feature i is paired with i + HALF (the layout of transformers), or PAIRS: 2 i with 2 i + 1;
    features past 2 * HALF are not rotated. A rotation's gradient is the inverse rotation: `sign`
    -1.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS_UP)
    at = tl.arange(0, HALF_UP)
    c = tl.load(cos + row * HALF + at, mask=at < HALF, other=0.0)[None, :]
    s = tl.load(sin + row * HALF + at, mask=at < HALF, other=0.0)[None, :] * sign
    is_head = (head < HEADS)[:, None]
    head_at = head
    if GROUPED:
        head_at = head + head // 2
    place = qkv + row * stride + head_at[:, None] * SIZE
    kind = qkv.dtype.element_ty
    if PAIRS:  # read as a whole: two reads of every second value take several times as long
        every = tl.arange(0, 2 * HALF_UP)
        ok = is_head & (every < 2 * HALF)[None, :]
        values = tl.load(place + every[None, :], mask=ok, other=0.0).to(tl.float32)
        first, second = tl.split(tl.reshape(values, (HEADS_UP, HALF_UP, 2)))
        turned = tl.join(first * c - second * s, second * c + first * s)
        turned = tl.reshape(turned, (HEADS_UP, 2 * HALF_UP))
        tl.store(place + every[None, :], turned.to(kind), mask=ok)
    else:
        ok = is_head & (at < HALF)[None, :]
        place += at[None, :]
        first = tl.load(place, mask=ok, other=0.0).to(tl.float32)
        second = tl.load(place + HALF, mask=ok, other=0.0).to(tl.float32)
        tl.store(place, (first * c - second * s).to(kind), mask=ok)
        tl.store(place + HALF, (second * c + first * s).to(kind), mask=ok)


@triton.jit
def _capped(x, CAP: tl.constexpr):
    if CAP > 0:
        x = CAP * tanh(x / CAP)
    return x


@triton.jit
def cross_entropy(
    logits, targets, losses, stride, values, scale, CAP: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Loss of one row per program; its logits are replaced by their gradient times `scale`.

    CAP: soft cap of the logits; 0 without one.

    Two passes over the vocabulary: an online log-sum-exp, then softmax minus the one-hot target.
    The target's logit is read first, as the second pass overwrites it.
    """
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    wanted = _capped(tl.load(logits + row * stride + target).to(tl.float32), CAP)
    high, total = -float("inf"), 0.0
    for start in range(0, values, BLOCK):
        at = start + tl.arange(0, BLOCK)
        part = tl.load(logits + row * stride + at, mask=at < values, other=-float("inf"))
        part = _capped(part.to(tl.float32), CAP)
        if CAP > 0:  # the cap of what lies outside is finite
            part = tl.where(at < values, part, -float("inf"))
        top = tl.maximum(high, tl.max(part, 0))
        total = total * tl.exp(high - top) + tl.sum(tl.exp(part - top), 0)
        high = top
    lse = high + tl.log(total)
    tl.store(losses + row, lse - wanted)
    for start in range(0, values, BLOCK):
        at = start + tl.arange(0, BLOCK)
        place = logits + row * stride + at
        part = tl.load(place, mask=at < values, other=-float("inf")).to(tl.float32)
        part = _capped(part, CAP)
        slope = tl.exp(part - lse) - tl.where(at == target, 1.0, 0.0)
        if CAP > 0:
            slope *= 1.0 - (part / CAP) * (part / CAP)
        tl.store(place, (slope * scale).to(logits.dtype.element_ty), mask=at < values)
