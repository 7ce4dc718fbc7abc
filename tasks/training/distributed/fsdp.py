"""A base too large for one GPU: its frozen layers are split over the processes of a team (FSDP).

In: a model with LoRA, loaded on the CPU. Out: the same model on the process's device, whose decoder
layers each hold a share of their frozen weights and gather the rest while they compute. LoRA stays
whole in every process, so that gradients are summed as in any team. All processes must run equally
many windows, as each one waits for the others' shares.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from tasks.core.models.packed_attention import PACKED, has_varlen
from tasks.core.models.packed_forward import base_model


def shard(model: Any, device: torch.device) -> None:
    """Split the frozen weights of the decoder layers, one layer on the device at a time."""
    base = base_model(model)
    layers: nn.ModuleList = base.base_model.layers
    for place, layer in enumerate(layers):
        layer.to(device)
        layers[place] = FullyShardedDataParallel(
            layer,
            ignored_states=[p for p in layer.parameters() if p.requires_grad],
            use_orig_params=True,
            device_id=device,
        )
    for name, module in base.named_modules():
        if "layers." not in name and not any(True for _ in module.children()):
            module.to(device)
    if has_varlen(device) and base.dtype != torch.float32:
        base.set_attn_implementation(PACKED)


def unwrap(model: Any) -> None:
    """Take the wrappers off again: frozen weights are in shares, LoRA is whole and can be saved."""
    layers = base_model(model).base_model.layers
    for place, layer in enumerate(layers):
        layers[place] = layer.module
