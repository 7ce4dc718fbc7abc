"""LoRA's products and dropout in PyTorch: the reference for the GPU kernels, and used on CPUs."""

import torch
from torch import Tensor

from tasks.training.fast.ops.dropout import Dropout, hash_bits
from tasks.training.fast.ops.operands import LoraInput


class TorchLora:
    """LoRA's products by PyTorch.

    Masks are kept from the forward to the backward pass, one byte per value: hashing takes a dozen
    passes over memory in PyTorch and none in a GPU kernel.
    """

    def __init__(self) -> None:
        self._masks: dict[int, list[Tensor]] = {}

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


def make_masks(
    rows: int, columns: int, members: int, drop: Dropout, device: torch.device
) -> list[Tensor]:
    """One mask per member, bool[rows, columns], true for kept values."""
    h = hash_bits(rows, columns, drop.seed, device)
    field = 2**drop.bits - 1
    return [(h >> member * drop.bits & field) >= drop.threshold for member in range(members)]
