"""Operands of the fast path's operations: shapes, LoRA, sample bounds, 8-bit values.

All operations work on [tokens, features] matrices and write into tensors of the caller.

LoRA is folded into the matrix products. The input of linear layers is *extended*: after its K
features come the columns u = scale * dropout(x) A^T [tokens, members * rank], then zeros up to a
multiple of `PAD`. The weight [n, K] is extended with B in the same columns. Then one product
computes both parts, and one product in the backward pass computes both gradients:

    [x, u, 0] [W, B, 0]^T = x W^T + scale * dropout(x) A^T B^T
    grad [W, B, 0]        = [gradient of x through W, gradient of u, 0]

*Members* are linear layers that share an input (q, k and v; gate and up). Their weights lie one
below the other; each member has its own columns of u, zero in the rows of other members' B.
"""

from dataclasses import dataclass

from torch import Tensor

from tasks.training.fast.ops.dropout import Dropout

GROUP = 64  # values that share a scale in 8 bit, and that are rotated together
TINY = 1e-30  # instead of a scale of zero
PAD = 32  # multiple of extended widths: keeps rows aligned for the matrix units


@dataclass(frozen=True)
class Bounds:
    """Sample boundaries of a packed window.

    A sliding window is part of both bounds, so that kernels need no code for it: it starts a
    token's view later, and ends the view of it earlier.

    Attributes:
        starts: int32[tokens], the first token that each token attends to. Never decreases.
        ends: int32[tokens], end of the tokens that attend to each token. Never decreases.
        cu_seqlens: int32[samples + 1], cumulative lengths.
        window: Tokens of the sliding window; 0 without one.
    """

    starts: Tensor
    ends: Tensor
    cu_seqlens: Tensor
    window: int = 0


@dataclass(frozen=True)
class Heads:
    """Shape of attention.

    Attributes:
        queries: Query heads.
        keys: Key (and value) heads.
        size: Features per head.
        rotated: Rotated features per head, the first ones.
        scaling: Factor of the scores; None: size^-0.5.
        cap: Soft cap of the scores: cap * tanh(score / cap); 0 without one.
        adjacent_pairs: Rotated feature 2 i is paired with 2 i + 1, not i with i + rotated / 2.
        grouped: Columns are q, k, v of the first head, then of the second, and so on; else all
            queries, all keys, all values.
    """

    queries: int
    keys: int
    size: int
    rotated: int
    scaling: float | None = None
    cap: float = 0.0
    adjacent_pairs: bool = False
    grouped: bool = False

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return self.size**-0.5 if self.scaling is None else self.scaling

    @property
    def width(self) -> int:
        """Columns of q, k and v side by side."""
        return (self.queries + 2 * self.keys) * self.size

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as views [tokens, heads, size]."""
        if self.grouped:
            q, k, v = qkv.view(len(qkv), self.queries, 3, self.size).unbind(2)
            return q, k, v
        heads, values = qkv.view(len(qkv), -1, self.size), self.queries + self.keys
        return heads[:, : self.queries], heads[:, self.queries : values], heads[:, values:]


@dataclass(frozen=True)
class Activation:
    """Of the MLP: silu, gelu, gelu_tanh or relu2; of half of its features if they are gates."""

    name: str
    gated: bool = True


@dataclass(frozen=True)
class NormWeights:
    """A frozen LayerNorm if `layer_norm`, else an RMSNorm.

    Weight and bias are [K], or [heads, K] for norms of heads that differ.
    """

    weight: Tensor
    bias: Tensor | None
    eps: float
    layer_norm: bool


@dataclass(frozen=True)
class LoraInput:
    """The A side of the LoRA layers that share one input.

    Attributes:
        a: [members * rank, K], one A below the other, in the precision of the products.
        members: LoRA layers that share the input.
        scale: LoRA's alpha / rank.
        drop: The same in the forward and the backward pass.
    """

    a: Tensor
    members: int
    scale: float
    drop: Dropout

    @property
    def rank(self) -> int:
        """Rows of one member's A."""
        return self.a.shape[0] // self.members

    @property
    def factor(self) -> float:
        """LoRA's scale times dropout's."""
        return self.scale * self.drop.keep_scale


@dataclass(frozen=True)
class AttentionTensors:
    """Attention of one layer over one window.

    Attributes:
        qkv: [tokens, heads.width], q and k rotated.
        out: [tokens, queries * size], the output; may be a view of wider rows.
        lse: float32[queries, tokens], log-sum-exp of the scores for the backward pass; only the GPU
            kernels use it, in base 2.
        heads: Shape.
        bounds: Of the samples.
    """

    qkv: Tensor
    out: Tensor
    lse: Tensor
    heads: Heads
    bounds: Bounds


@dataclass(frozen=True)
class Packed:
    """Gate and up of a kept layer in 8 bit: `GROUP` values of a row share a scale."""

    values: Tensor  # int8[tokens, 2 F], or F without gates
    scales: Tensor  # float32[tokens, 2 groups of F], likewise

    def __getitem__(self, part: slice) -> "Packed":
        return Packed(self.values[part], self.scales[part])


@dataclass(frozen=True)
class GateUpLora:
    """The B side of gate and up, whose gradients the backward pass of the activation adds.

    Attributes:
        u: [tokens, members * rank], LoRA's first products.
        rank: LoRA's.
        gate: First column of gate's u; -1 without LoRA.
        up: Likewise.
        gate_grad: float32[F, rank], gradient of gate's B, or None.
        up_grad: Likewise.
    """

    u: Tensor
    rank: int
    gate: int
    up: int
    gate_grad: Tensor | None
    up_grad: Tensor | None


@dataclass(frozen=True)
class Rotated:
    """A group's frozen weight for products in 8 bit, rotated along its rows and transposed."""

    values: Tensor  # int8[K, n]
    scales: Tensor  # float32[K]
    tail: Tensor  # [n, columns], B of all members, not rounded


@dataclass(frozen=True)
class Rounded:
    """A gradient [tokens, n], rotated and rounded: int8[tokens, n] and float32[tokens] scales."""

    values: Tensor
    scales: Tensor


def pack_groups(features: int) -> int:
    """Scales of one row of `features` values."""
    return -(-features // GROUP)
