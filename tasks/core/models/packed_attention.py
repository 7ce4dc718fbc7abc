"""Packed (variable-length) attention: isolates the samples of a window without an n x n mask.

Registered in transformers as the attention implementation `packed`. The sample bounds are passed
as the model's attention mask: transformers forwards a 4-dimensional mask unchanged, so no state is
kept outside of the call, and a recomputed checkpointed layer sees the same bounds. Any other call
(generation, a padded batch) gets PyTorch's scaled dot product attention with the usual mask.
"""

import inspect
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

PACKED = "packed"
_AMPERE = (8, 0)


@cache
def _varlen() -> Any:
    try:
        from torch.nn.attention import varlen
    except ImportError:  # PyTorch before 2.10
        return None
    return varlen.varlen_attn


@cache
def _causal_arguments() -> dict[str, Any]:
    """The arguments for causal attention, which PyTorch renamed after 2.10."""
    known = inspect.signature(_varlen()).parameters
    return {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}


def has_varlen(device: torch.device) -> bool:
    """Whether a device has PyTorch's varlen kernel (CUDA, Ampere or newer)."""
    return (
        device.type == "cuda"
        and _varlen() is not None
        and torch.cuda.get_device_capability(device) >= _AMPERE
    )


def cu_seqlens_mask(cu_seqlens: Tensor, max_tokens: int) -> Tensor:
    """Sample bounds as an attention mask, int32[1, 1, max_tokens, k + 1], a view.

    The shape holds the longest length, so that reading it needs no synchronization with the GPU.
    """
    return cu_seqlens.view(1, 1, 1, -1).expand(1, 1, max_tokens, -1)


def register_packed_attention() -> None:
    """Register `packed` with transformers; idempotent."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, sdpa_mask)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: query [1, heads, n, size] -> [1, n, heads, size]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is None or attention_mask.dtype != torch.int32:  # not by `cu_seqlens_mask`
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output, None
    cu_seqlens, longest = attention_mask[0, 0, 0], attention_mask.shape[2]
    arguments = dict(_causal_arguments()) if query.device.type == "cuda" else {}
    if kwargs.get("sliding_window"):
        arguments["window_size"] = (kwargs["sliding_window"] - 1, 0)
    # the kernel requires as many key heads as query heads
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if q.shape[1] != k.shape[1]:
        k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    kernel = _varlen() if query.device.type == "cuda" else varlen_reference
    output = kernel(q, k, v, cu_seqlens, cu_seqlens, longest, longest, scale=scaling, **arguments)
    return output[None], None


def varlen_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    _cu_seqlens_k: Tensor,
    _longest: int,
    _longest_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, 0),
    is_causal: bool = True,
) -> Tensor:
    """What the varlen kernel computes, sample by sample, on any device: [n, heads, size].

    The stage `base` checks with it whether a model is right with the kernel, which a CPU lacks.
    """
    outputs = []
    bounds = cu_seqlens.tolist()
    for start, stop in pairwise(bounds):
        query, key, value = (x[start:stop].transpose(0, 1)[None] for x in (q, k, v))
        at = torch.arange(stop - start, device=q.device)
        distance = at[:, None] - at[None]
        seen = distance >= 0
        if window_size[0] >= 0:
            seen &= distance <= window_size[0]
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=scale
        )
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)
