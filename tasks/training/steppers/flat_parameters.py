"""Flat parameters: all trained parameters as views of one tensor, their gradients of another.

In: a model with LoRA. Out: one parameter for the optimizer. One tensor takes one kernel for the
optimizer, one for the norm and one for clearing; with hundreds of small tensors, launching kernels
takes the host longer than the GPU needs to run them. LoRA sizes are multiples of 256 in practice,
so an 8-bit optimizer's blocks of 256 values are those of separate tensors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class FlatParameters:
    """The trainable parameters of a model in one tensor.

    Args:
        model: Its trainable parameters must all be float32 on one device; they become views of the
            flat tensor, with gradients that autograd adds to in place.
        order: Sort key of names; the fast path reads adjacent matrices as one.

    Attributes:
        values: The one parameter, float32[n]; its `grad` is the flat gradient.
        names: Names of the parameters, in order.
        offsets: name -> index of its first value in the flat tensors.
        views: name -> (values, gradient), views in the parameter's own shape.
    """

    def __init__(self, model: Any, order: Callable[[str], Any] = str) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        named.sort(key=lambda item: order(item[0]))
        wrong = [name for name, p in named if p.dtype != torch.float32]
        if not named or wrong:
            raise ValueError(f"trained parameters must be float32 and at least one, not {wrong}")
        self.names = tuple(name for name, _ in named)
        device, total = named[0][1].device, sum(p.numel() for _, p in named)
        self.values = nn.Parameter(torch.empty(total, dtype=torch.float32, device=device))
        self.values.grad = torch.zeros_like(self.values)
        self.views: dict[str, tuple[Tensor, Tensor]] = {}
        self.offsets: dict[str, int] = {}
        start = 0
        for name, parameter in named:
            stop = start + parameter.numel()
            value = self.values.detach()[start:stop].view(parameter.shape)
            gradient = self.values.grad[start:stop].view(parameter.shape)
            value.copy_(parameter.detach())
            parameter.data = value
            parameter.grad = gradient
            self.views[name] = (value, gradient)
            self.offsets[name] = start
            start = stop

    @property
    def gradient(self) -> Tensor:
        """The flat gradient, float32[n]."""
        gradient = self.values.grad
        assert gradient is not None
        return gradient

    def clear(self) -> None:
        """Set all gradients to 0 in place; None would detach them from the flat gradient."""
        self.gradient.zero_()

    def clip(self, max_norm: float, loss_scale: float = 1.0) -> Tensor:
        """Scale the gradient down to `max_norm` (0: never); returns its norm before, float32[].

        Nothing waits for the GPU: the factor is clamped to 1 there instead of branching here.

        Args:
            max_norm: Of the gradient without the scale.
            loss_scale: Of the gradient; divided out.
        """
        norm: Tensor = torch.linalg.vector_norm(self.gradient) / loss_scale
        if max_norm or loss_scale != 1:
            factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0) if max_norm else 1.0
            self.gradient.mul_(factor / loss_scale)
        return norm
