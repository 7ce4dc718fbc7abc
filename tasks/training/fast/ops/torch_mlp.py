"""The MLP's activation in PyTorch: the reference for the GPU kernels, and used on CPUs."""

import math

import torch
from torch import Tensor

from tasks.training.fast.ops.operands import GROUP, TINY, Activation, GateUpLora, LoraInput, Packed
from tasks.training.fast.ops.torch_lora import TorchLora


class TorchMlp(TorchLora):
    """The MLP's activation by PyTorch, with the LoRA beside it."""

    def activate(
        self,
        form: Activation,
        gate_up: Tensor,
        out: Tensor,
        lora: LoraInput | None,
        side: Tensor,
        packed: Packed | None = None,
    ) -> None:
        """act(gate) * up from [tokens, 2 F] into the extended `out`, then `lora_in` of it.

        Without gates act(x) from [tokens, F]. With `packed`, the input is stored there in 8 bit.
        """
        gate, *up = (part.float() for part in _parts(form, gate_up))
        value, _ = activation(form.name, gate)
        out[:, : gate.shape[1]].copy_(value * up[0] if up else value)
        if packed is not None:
            _pack(form, gate_up, packed)
        if lora is not None:
            self.lora_in(out, lora, side)

    def activate_backward(
        self,
        form: Activation,
        gate_up: Tensor,
        grad: Tensor,
        lora: LoraInput | None,
        a_grad: Tensor | None,
        above: GateUpLora,
        packed: Packed | None = None,
    ) -> None:
        """`lora_in_backward`, then gate and up are replaced by their gradients, in place.

        Args:
            form: Of the activation.
            gate_up: [tokens, 2 F], or [tokens, F] without gates; with `packed`, read from there.
            grad: Of the extended output.
            lora: Of the output.
            a_grad: Gradient of its A; added to.
            above: LoRA of gate and up, whose B gradients are added.
            packed: As `activate` stored it.
        """
        if packed is not None:
            _unpack(form, packed, gate_up)
        parts = _parts(form, gate_up)
        gate, *up = (part.float() for part in parts)
        value, slope = activation(form.name, gate)
        if lora is not None and a_grad is not None:
            output = value * up[0] if up else value
            self.lora_in_backward(output.to(grad.dtype), grad, lora, a_grad)
        given = grad[:, : gate.shape[1]].float()
        slopes = (up[0] * slope, value) if up else (slope,)
        columns, grads = (above.gate, above.up), (above.gate_grad, above.up_grad)
        for part, factor, at, b_grad in zip(parts, slopes, columns, grads, strict=False):
            part.copy_(given * factor)
            if b_grad is not None:
                self.lora_out_backward(part, above.u[:, at : at + above.rank], b_grad)


def activation(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """An activation and its derivative."""
    if name == "relu2":
        positive = torch.relu(x)
        return positive.square(), 2 * positive
    if name == "gelu":
        share = 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
        return x * share, share + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    inner, slope = x, torch.ones_like(x)
    if name == "gelu_tanh":  # (1 + tanh(z)) / 2 = sigmoid(2 z)
        factor = 2 * math.sqrt(2 / math.pi)
        inner, slope = factor * (x + 0.044715 * x**3), factor * (1 + 3 * 0.044715 * x * x)
    share = torch.sigmoid(inner)
    return x * share, share + x * share * (1 - share) * slope


def _parts(form: Activation, x: Tensor) -> tuple[Tensor, ...]:
    """Gate and up, or what is activated alone."""
    return x.chunk(2, -1) if form.gated else (x,)


def _pack(form: Activation, gate_up: Tensor, to: Packed) -> None:
    """Round gate and up to 8 bit."""
    parts = (_parts(form, each) for each in (gate_up, to.values, to.scales))
    for part, values, scales in zip(*parts, strict=True):
        groups = _groups(part.float())
        scales.copy_((groups.abs().amax(-1) / 127).clamp(min=TINY))
        rounded = (groups * (1 / scales)[..., None]).round().to(torch.int8)
        values.copy_(rounded.flatten(-2)[:, : part.shape[1]])


def _unpack(form: Activation, packed: Packed, to: Tensor) -> None:
    parts = (_parts(form, each) for each in (to, packed.values, packed.scales))
    for part, values, scales in zip(*parts, strict=True):
        full = (_groups(values.float()) * scales[..., None]).flatten(-2)
        part.copy_(full[:, : part.shape[1]])


def _groups(x: Tensor) -> Tensor:
    """[tokens, groups, GROUP], filled up with zeros."""
    missing = -x.shape[1] % GROUP
    return torch.nn.functional.pad(x, (0, missing)).view(len(x), -1, GROUP)
