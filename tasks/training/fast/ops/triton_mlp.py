"""The MLP's activation as launches of Triton kernels; `torch_mlp.TorchMlp` documents each."""

from typing import Any

import triton
from torch import Tensor

from tasks.training.fast.kernels import activation as kernels
from tasks.training.fast.ops.operands import Activation, GateUpLora, LoraInput, Packed
from tasks.training.fast.ops.triton_lora import TritonLora, lora_numbers, lora_shape, split
from tasks.training.fast.ops.triton_weights import padded_rank, tail

ACTIVATE = {"ROWS": 16, "BLOCK": 256, "num_warps": 8, "num_stages": 3}
ACTIVATE_PACK = {"ROWS": 16, "BLOCK": 128, "num_warps": 8, "num_stages": 3}  # with the 8-bit copy
ACTIVATE_BACKWARD = {"ROWS": 16, "BLOCK": 64, "num_warps": 4, "num_stages": 3}


class TritonMlp(TritonLora):
    """The MLP's activation on a GPU."""

    def activate(
        self,
        form: Activation,
        gate_up: Tensor,
        out: Tensor,
        lora: LoraInput | None,
        side: Tensor,
        packed: Packed | None = None,
    ) -> None:
        """The activation, LoRA's first product of it, and the 8-bit copy."""
        (tokens, width), inner = out.shape, _inner(form, gate_up)
        small, scales = (out, out) if packed is None else (packed.values, packed.scales)
        seeds, factor, place, threshold, a = lora_numbers(lora, out)
        tile = ACTIVATE if packed is None else ACTIVATE_PACK
        kernels.activate[(triton.cdiv(tokens, tile["ROWS"]),)](
            gate_up, out, a, side, seeds, small, scales,
            gate_up.stride(0), out.stride(0), tokens, inner, width, factor, place, threshold,
            **lora_shape(lora), **_form(form), PACK=packed is not None,
            TAIL=tail(width - inner), **tile,
        )  # fmt: skip

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
        """Gradients of gate and up, of the output's A, and of the B of gate and up."""
        tokens, inner, tile = len(gate_up), _inner(form, gate_up), ACTIVATE_BACKWARD
        columns = triton.cdiv(inner, tile["BLOCK"])
        runs, steps = split(tokens, tile["ROWS"], columns)
        small, scales = (grad, grad) if packed is None else (packed.values, packed.scales)
        seeds, factor, place, threshold, a = lora_numbers(lora, grad)
        unused = grad  # where a pointer is not read
        sums = (unused if one is None else one for one in (above.gate_grad, above.up_grad))
        kernels.activate_backward[(columns, runs)](
            gate_up, grad, a, unused if a_grad is None else a_grad, seeds, small, scales,
            above.u, *sums,
            gate_up.stride(0), grad.stride(0), above.u.stride(0),
            tokens, inner, factor, place, threshold, steps,
            **lora_shape(lora), **_form(form), PACKED=packed is not None,
            GATE=above.gate, UP=above.up,
            B_RANK=above.rank, B_PADDED=padded_rank(above.rank), **tile,
        )  # fmt: skip


def _inner(form: Activation, gate_up: Tensor) -> int:
    """F, features of the output."""
    return gate_up.shape[1] // 2 if form.gated else gate_up.shape[1]


def _form(form: Activation) -> dict[str, Any]:
    """Constants of the kernels."""
    return {"ACT": kernels.ACTIVATIONS.index(form.name), "GATED": form.gated}
