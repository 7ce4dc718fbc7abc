"""The fast path's operations in PyTorch: the reference for the GPU kernels, and used on CPUs.

See `operands` for the form of their operands.
"""

from itertools import pairwise

import torch
from torch import Tensor

from tasks.training.fast.ops.head_norms import HeadNorms
from tasks.training.fast.ops.operands import AttentionTensors, Heads, NormWeights
from tasks.training.fast.ops.torch_mlp import TorchMlp
from tasks.training.fast.ops.torch_weights import TorchWeights


class TorchOps(TorchWeights, TorchMlp, HeadNorms):
    """The operations by PyTorch, on any device and in any precision."""

    @staticmethod
    def norm(x: Tensor, norm: NormWeights, out: Tensor, stream: Tensor | None = None) -> None:
        """LayerNorm or RMSNorm over the last dimension of `x`, into `out` [tokens, K], a view.

        Plus `stream`, likewise; without it, `x` and `out` may be [tokens, heads, K]. Rounded once,
        after all of it; transformers' RMSNorm in bfloat16 rounds before the weight, too.
        """
        hat, _ = _normalized(x.float(), norm)
        result = hat * norm.weight.float()
        if norm.bias is not None:
            result = result + norm.bias.float()
        out.copy_(result if stream is None else result + stream.float())

    @staticmethod
    def norm_backward(
        x: Tensor, norm: NormWeights, grad: Tensor, to: Tensor, *, add: bool = True
    ) -> None:
        """The norm's input gradient, from `grad` of its output.

        Added to `to`; without `add` it replaces `to`, which may be `grad`.
        """
        hat, rstd = _normalized(x.float(), norm)
        slope = grad.float() * norm.weight.float()
        inner = slope - hat * (slope * hat).mean(-1, keepdim=True)
        if norm.layer_norm:
            inner -= slope.mean(-1, keepdim=True)
        found = inner * rstd
        to.copy_(to.float() + found if add else found)

    @staticmethod
    def rope(qkv: Tensor, heads: Heads, cos: Tensor, sin: Tensor, inverse: bool) -> None:
        """Rotate q and k in place by tables float32[tokens, rotated / 2]; the gradient: `inverse`.

        Feature i is paired with i + rotated / 2, or 2 i with 2 i + 1 (`Heads.adjacent_pairs`);
        features past `rotated` stay.
        """
        half, s1 = heads.rotated // 2, (-sin if inverse else sin)[:, None]
        pairs = (slice(0, half), slice(half, heads.rotated))
        if heads.adjacent_pairs:
            pairs = (slice(0, heads.rotated, 2), slice(1, heads.rotated, 2))
        for part in heads.split(qkv)[:2]:
            first, second = (part[..., pair].float() for pair in pairs)
            c1 = cos[:, None]
            turned = first * c1 - second * s1, second * c1 + first * s1
            part[..., pairs[0]], part[..., pairs[1]] = turned

    @staticmethod
    def attention(state: AttentionTensors) -> None:
        """Causal attention within each sample, into `state.out` and `state.lse`."""
        for start, stop in pairwise(state.bounds.cu_seqlens.tolist()):
            part = state.qkv[start:stop]
            state.out[start:stop] = _attend(part, state.heads, state.bounds.window)

    @staticmethod
    def attention_backward(state: AttentionTensors, grad: Tensor, to: Tensor) -> None:
        """Gradient of q, k, v into `to` [tokens, width] from `grad` of `state.out`."""
        for start, stop in pairwise(state.bounds.cu_seqlens.tolist()):
            with torch.enable_grad():
                part = state.qkv[start:stop].detach().requires_grad_()
                out = _attend(part, state.heads, state.bounds.window)
                (to[start:stop],) = torch.autograd.grad(out, part, grad[start:stop])

    @staticmethod
    def cross_entropy(
        logits: Tensor, targets: Tensor, scale: float, losses: Tensor, cap: float = 0.0
    ) -> None:
        """Loss of each row into `losses`; `logits` become their gradient times `scale`.

        With a soft cap, the loss is that of cap * tanh(logits / cap).
        """
        full = logits.float()
        capped = cap * torch.tanh(full / cap) if cap else full
        losses.copy_(torch.nn.functional.cross_entropy(capped, targets, reduction="none"))
        slope = torch.softmax(capped, -1)
        slope[torch.arange(len(targets), device=targets.device), targets] -= 1
        if cap:
            slope *= 1 - (capped / cap) ** 2
        logits.copy_(slope * scale)


def _normalized(x: Tensor, norm: NormWeights) -> tuple[Tensor, Tensor]:
    """Normalized rows and one over their deviation."""
    centered = x - x.mean(-1, keepdim=True) if norm.layer_norm else x
    rstd = torch.rsqrt(centered.square().mean(-1, keepdim=True) + norm.eps)
    return centered * rstd, rstd


def _attend(qkv: Tensor, heads: Heads, window: int) -> Tensor:
    """Causal attention of one sample, [tokens, queries * size]."""
    q, k, v = (part.transpose(0, 1)[None] for part in heads.split(qkv))
    repeats = heads.queries // heads.keys
    if repeats > 1:
        k, v = (part.repeat_interleave(repeats, dim=1) for part in (k, v))
    if not window and not heads.cap:
        attend = torch.nn.functional.scaled_dot_product_attention
        out = attend(q, k, v, is_causal=True, scale=heads.scale)
    else:
        scores = q.float() @ k.float().transpose(2, 3) * heads.scale
        if heads.cap:
            scores = heads.cap * torch.tanh(scores / heads.cap)
        at = torch.arange(len(qkv), device=qkv.device)
        distance = at[:, None] - at
        hidden = (distance < 0) | (distance >= (window or len(qkv)))
        shares = torch.softmax(scores.masked_fill(hidden, float("-inf")), -1)
        out = (shares @ v.float()).to(v.dtype)
    return out[0].transpose(0, 1).reshape(qkv.shape[0], -1)
