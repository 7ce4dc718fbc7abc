"""The fast path's operations in PyTorch: the reference for the GPU kernels, and used on CPUs.

See `operands` for the form of their operands.
"""

from itertools import pairwise

import torch
from torch import Tensor

from tasks.training.fast.operands import (
    GROUP,
    TINY,
    AttentionTensors,
    Dropout,
    GateUpLora,
    Heads,
    LoraInput,
    NormWeights,
    Packed,
    hash_bits,
)
from tasks.training.fast.torch_weights import TorchWeights


class TorchOps(TorchWeights):
    """The operations by PyTorch, on any device and in any precision.

    Masks are kept from the forward to the backward pass, one byte per value: hashing takes a dozen
    passes over memory in PyTorch and none in a GPU kernel.
    """

    def __init__(self) -> None:
        self._masks: dict[int, list[Tensor]] = {}

    @staticmethod
    def norm(x: Tensor, norm: NormWeights, out: Tensor) -> None:
        """LayerNorm or RMSNorm of the rows of `x`, into `out` [tokens, K], a view.

        Rounded once, after the weight; transformers' RMSNorm in bfloat16 rounds before it, too.
        """
        hat, _ = _normalized(x.float(), norm)
        result = hat * norm.weight.float()
        out.copy_(result if norm.bias is None else result + norm.bias.float())

    @staticmethod
    def norm_backward(x: Tensor, norm: NormWeights, grad: Tensor, residual: Tensor) -> None:
        """Add the norm's input gradient to `residual` in place; `grad` is that of its output."""
        hat, rstd = _normalized(x.float(), norm)
        slope = grad.float() * norm.weight.float()
        inner = slope - hat * (slope * hat).mean(-1, keepdim=True)
        if norm.layer_norm:
            inner -= slope.mean(-1, keepdim=True)
        residual.copy_(residual.float() + inner * rstd)

    def lora_in(self, x: Tensor, lora: LoraInput, side: Tensor) -> None:
        """Write u = scale * dropout(x) A^T of all members after x's K columns, then zeros.

        Args:
            x: Extended input.
            lora: A and dropout.
            side: [tokens, members * rank]; u is written there, too.
        """
        a, drop, rank, inner = lora.a, lora.drop, lora.rank, lora.a.shape[1]
        if not drop.threshold:
            torch.mul(x[:, :inner] @ a.t(), lora.factor, out=side)
        else:
            masks = self._masks[drop.seed] = make_masks(len(x), inner, lora.members, drop, x.device)
            for member, mask in enumerate(masks):
                rows = slice(member * rank, (member + 1) * rank)
                torch.mul((x[:, :inner] * mask) @ a[rows].t(), lora.factor, out=side[:, rows])
        self.restore(x, side, inner)

    @staticmethod
    def restore(x: Tensor, side: Tensor, inner: int) -> None:
        """Write `side` after the first `inner` columns of an extended input, then zeros."""
        x[:, inner : inner + side.shape[1]].copy_(side)
        x[:, inner + side.shape[1] :].zero_()

    def lora_in_backward(self, x: Tensor, grad: Tensor, lora: LoraInput, a_grad: Tensor) -> None:
        """From the gradient of an extended input: A's gradient, and A's part of the input's.

        Args:
            x: The input; columns after the first K are not read.
            grad: Of the extended input; A's part is added to the first K columns in place.
            lora: As in the forward pass; its stored masks are used up.
            a_grad: float32, like `lora.a`; added to.
        """
        a, drop, rank, inner = lora.a, lora.drop, lora.rank, lora.a.shape[1]
        u_grad, to = grad[:, inner : inner + len(a)] * lora.factor, grad[:, :inner]
        if not drop.threshold:
            a_grad += u_grad.t() @ x[:, :inner]
            to += u_grad @ a
            return
        masks = self._masks.pop(drop.seed, None)
        if masks is None:
            masks = make_masks(len(x), inner, lora.members, drop, x.device)
        for member, mask in enumerate(masks):
            rows = slice(member * rank, (member + 1) * rank)
            a_grad[rows] += u_grad[:, rows].t() @ (x[:, :inner] * mask)
            to += (u_grad[:, rows] @ a[rows]).mul_(mask)

    @staticmethod
    def lora_out_backward(grad: Tensor, u: Tensor, b_grad: Tensor) -> None:
        """Add grad^T u to B's gradient: [tokens, n], [tokens, r] -> float32[n, r].

        `u` holds LoRA's scale and dropout already.
        """
        b_grad += grad.t() @ u

    @staticmethod
    def rope(qkv: Tensor, heads: Heads, cos: Tensor, sin: Tensor, inverse: bool) -> None:
        """Rotate q and k in place by tables float32[tokens, rotated / 2]; the gradient: `inverse`.

        Feature i is paired with i + rotated / 2; features past `rotated` stay.
        """
        q, k, _ = heads.split(qkv)
        half = heads.rotated // 2
        s = -sin if inverse else sin
        for part in (q, k):
            first, second = part[..., :half].float(), part[..., half : heads.rotated].float()
            c1, s1 = cos[:, None], s[:, None]
            turned = first * c1 - second * s1, second * c1 + first * s1
            part[..., :half], part[..., half : heads.rotated] = turned

    @staticmethod
    def attention(state: AttentionTensors) -> None:
        """Causal attention within each sample, into `state.out` and `state.lse`."""
        for start, stop in pairwise(state.bounds.cu_seqlens.tolist()):
            state.out[start:stop] = _attend(state.qkv[start:stop], state.heads)

    @staticmethod
    def attention_backward(state: AttentionTensors, grad: Tensor, to: Tensor) -> None:
        """Gradient of q, k, v into `to` [tokens, width] from `grad` of `state.out`."""
        for start, stop in pairwise(state.bounds.cu_seqlens.tolist()):
            with torch.enable_grad():
                part = state.qkv[start:stop].detach().requires_grad_()
                out = _attend(part, state.heads)
                (to[start:stop],) = torch.autograd.grad(out, part, grad[start:stop])

    def swiglu(
        self,
        gate_up: Tensor,
        out: Tensor,
        lora: LoraInput | None,
        side: Tensor,
        packed: Packed | None = None,
    ) -> None:
        """silu(gate) * up from [tokens, 2 F] into the extended `out`, then `lora_in` of it.

        With `packed`, gate and up are stored there in 8 bit.
        """
        gate, up = gate_up.chunk(2, -1)
        out[:, : gate.shape[1]].copy_(torch.nn.functional.silu(gate.float()) * up.float())
        if packed is not None:
            _pack(gate_up, packed)
        if lora is not None:
            self.lora_in(out, lora, side)

    def swiglu_backward(
        self,
        gate_up: Tensor,
        grad: Tensor,
        lora: LoraInput | None,
        a_grad: Tensor | None,
        above: GateUpLora,
        packed: Packed | None = None,
    ) -> None:
        """`lora_in_backward`, then gate and up are replaced by their gradients, in place.

        Args:
            gate_up: [tokens, 2 F]; with `packed`, gate and up are read from there.
            grad: Of the extended output.
            lora: Of the output.
            a_grad: Gradient of its A; added to.
            above: LoRA of gate and up, whose B gradients are added.
            packed: As `swiglu` stored it.
        """
        if packed is not None:
            _unpack(packed, gate_up)
        inner = gate_up.shape[1] // 2
        gate, up = (part.float() for part in gate_up.chunk(2, -1))
        share = torch.sigmoid(gate)
        if lora is not None and a_grad is not None:
            self.lora_in_backward((gate * share * up).to(grad.dtype), grad, lora, a_grad)
        slope = grad[:, :inner].float()
        slopes = up * share * (1 + gate * (1 - share)), gate * share
        columns, grads = (above.gate, above.up), (above.gate_grad, above.up_grad)
        for part, factor, at, b_grad in zip(
            gate_up.chunk(2, -1), slopes, columns, grads, strict=True
        ):
            part.copy_(slope * factor)
            if b_grad is not None:
                self.lora_out_backward(part, above.u[:, at : at + above.rank], b_grad)

    @staticmethod
    def cross_entropy(logits: Tensor, targets: Tensor, scale: float, losses: Tensor) -> None:
        """Loss of each row into `losses`; `logits` become their gradient times `scale`."""
        full = logits.float()
        losses.copy_(torch.nn.functional.cross_entropy(full, targets, reduction="none"))
        slope = torch.softmax(full, -1)
        slope[torch.arange(len(targets), device=targets.device), targets] -= 1
        logits.copy_(slope * scale)


def _normalized(x: Tensor, norm: NormWeights) -> tuple[Tensor, Tensor]:
    """Normalized rows and one over their deviation."""
    centered = x - x.mean(-1, keepdim=True) if norm.layer_norm else x
    rstd = torch.rsqrt(centered.square().mean(-1, keepdim=True) + norm.eps)
    return centered * rstd, rstd


def make_masks(
    rows: int, columns: int, members: int, drop: Dropout, device: torch.device
) -> list[Tensor]:
    """One mask per member, bool[rows, columns], true for kept values."""
    h = hash_bits(rows, columns, drop.seed, device)
    field = 2**drop.bits - 1
    return [(h >> member * drop.bits & field) >= drop.threshold for member in range(members)]


def _attend(qkv: Tensor, heads: Heads) -> Tensor:
    q, k, v = (part.transpose(0, 1)[None] for part in heads.split(qkv))
    repeats = heads.queries // heads.keys
    if repeats > 1:
        k, v = (part.repeat_interleave(repeats, dim=1) for part in (k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out[0].transpose(0, 1).reshape(qkv.shape[0], -1)


def _pack(gate_up: Tensor, to: Packed) -> None:
    """Round gate and up to 8 bit."""
    halves = to.values.chunk(2, -1), to.scales.chunk(2, -1)
    for part, values, scales in zip(gate_up.chunk(2, -1), *halves, strict=True):
        groups = _groups(part.float())
        scales.copy_((groups.abs().amax(-1) / 127).clamp(min=TINY))
        rounded = (groups * (1 / scales)[..., None]).round().to(torch.int8)
        values.copy_(rounded.flatten(-2)[:, : part.shape[1]])


def _unpack(packed: Packed, to: Tensor) -> None:
    halves = packed.values.chunk(2, -1), packed.scales.chunk(2, -1)
    for part, values, scales in zip(to.chunk(2, -1), *halves, strict=True):
        full = (_groups(values.float()) * scales[..., None]).flatten(-2)
        part.copy_(full[:, : part.shape[1]])


def _groups(x: Tensor) -> Tensor:
    """[tokens, groups, GROUP], filled up with zeros."""
    missing = -x.shape[1] % GROUP
    return torch.nn.functional.pad(x, (0, missing)).view(len(x), -1, GROUP)
