"""Forward pass of fused experts, frozen in 16 or 4 bit, with LoRA beside them.

PEFT's `ParamWrapper` adds B A to the fused parameter before every use: one more copy of all experts
in 16 bit and their dense gradient, and small updates are lost in the sum's rounding. Here LoRA
works on the tokens, as in linear layers: y = W x + scaling B A x with the matrices of each token's
expert. PEFT still owns the matrices, so that adapters are PEFT's own.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor
from torch.nn.functional import pad
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _grouped_linear

from tasks.core.models.experts.fused import is_experts, shape_of, split_matrices, weight_names

IMPLEMENTATION = "frozen_with_lora"
RANK_STEP = 8  # the kernel needs rows of 16 bytes


def use_own_forward(model: Any) -> None:
    """Compute the fused experts of a model with this module; LoRA layers included."""
    for module in model.modules():
        if is_experts(module):
            ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, experts_forward)
            module.config._experts_implementation = IMPLEMENTATION
        elif isinstance(module, ParamWrapper) and is_experts(module.get_base_layer()):
            module._activate_lora = MethodType(_lora_beside, module)


def experts_forward(experts: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the chosen experts' outputs.

    Args:
        experts: The module.
        hidden: [tokens, features].
        chosen: int64[tokens, k].
        weights: [tokens, k].
    """
    tokens, k = chosen.shape
    ids, order = torch.sort(chosen.reshape(-1))
    up, down = weight_names(experts)
    numbers = torch.arange(shape_of(getattr(experts, up))[0], device=ids.device)
    ends = torch.searchsorted(ids, numbers, right=True).to(torch.int32)
    values = _project(experts, up, hidden[order // k], ids, ends)
    values = experts._apply_gate(values) if experts.has_gate else experts.act_fn(values)
    values = _project(experts, down, values, ids, ends)
    if getattr(experts, "has_post_expert_norm", False):
        values = experts.post_expert_norm(values)
    values = values * weights.reshape(-1)[order][:, None]
    restored = torch.empty_like(values).index_copy(0, order, values)
    return restored.view(tokens, k, -1).sum(1).to(hidden.dtype)


def _project(experts: Any, name: str, x: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
    """Outputs [n, out] of one fused weight for x [n, in], sorted by expert."""
    weight, transposed = getattr(experts, name), experts.is_transposed
    if getattr(weight, "quant_state", None) is not None:
        y: Tensor = _Product4bit.apply(x, weight, ends, transposed)  # type: ignore[no-untyped-call]
    else:
        y = _grouped_linear(x, weight, ends, is_transposed=transposed)
    if experts.has_bias:
        y = y + getattr(experts, f"{name}_bias")[ids]
    for a, b, scaling in vars(experts).get("lora", {}).get(name, ()):
        lora = _grouped_linear(_grouped_linear(x, a.to(x.dtype), ends), b.to(x.dtype), ends)
        y = y + scaling * lora
    return y


class _Product4bit(torch.autograd.Function):
    """Product with a frozen 4-bit weight, which is dequantized again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any, ends: Tensor, transposed: bool) -> Tensor:
        ctx.weight, ctx.transposed, ctx.dtype = weight, transposed, x.dtype
        ctx.save_for_backward(ends)
        y: Tensor = _grouped_linear(x, dequantized(weight), ends, is_transposed=transposed)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (ends,) = ctx.saved_tensors
        weight, back = dequantized(ctx.weight), not ctx.transposed
        gradient = _grouped_linear(gradients[0].contiguous(), weight, ends, is_transposed=back)
        return gradient.to(ctx.dtype), None, None, None


def dequantized(weight: Any) -> Tensor:
    """A 4-bit weight, fused or of a linear layer, in the compute type."""
    values: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return values


@contextmanager
def _lora_beside(wrapper: Any, adapters: Sequence[str]) -> Iterator[None]:
    """Inside the block the experts know the LoRA matrices of a wrapper's parameter."""
    experts, name = wrapper.get_base_layer(), wrapper.parameter_name
    active = [adapter for adapter in adapters if adapter in wrapper.lora_A]
    known = vars(experts).setdefault("lora", {})
    known[name] = [(*_matrices(wrapper, a), wrapper.scaling[a]) for a in active]
    try:
        yield
    finally:
        del known[name]


def _matrices(wrapper: Any, adapter: str) -> tuple[Tensor, Tensor]:
    """A [experts, rank, in] and B [experts, out, rank], the rank padded with zeros."""
    a, b = wrapper.lora_A[adapter].weight, wrapper.lora_B[adapter].weight
    a, b = split_matrices(a, b, wrapper.num_experts)
    more = -a.shape[1] % RANK_STEP
    # PEFT's layout gives strided views, which the grouped product of a GPU rejects
    return pad(a, (0, 0, 0, more)).contiguous(), pad(b, (0, more)).contiguous()


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Hide PEFT's warning that patterns match no module: it does not look at parameters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*_pattern keys did not match", module="peft")
        yield
