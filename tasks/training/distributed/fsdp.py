"""FSDP for a base model too large for one GPU: shards its frozen layers over the processes.

In: a model with LoRA, loaded on the CPU. Out: the same model on the process's device; each decoder
layer holds a shard of its frozen weights and gathers the others while it computes. LoRA is not
sharded, so gradients are summed as in any data-parallel run. All processes must run equally many
windows, because gathering waits for all of them.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from tasks.core.models.packed_attention import PACKED, has_varlen
from tasks.core.models.packed_forward import base_model


def shard(model: Any, device: torch.device) -> None:
    """Shard the frozen weights of the decoder layers, one layer on the device at a time."""
    base = base_model(model)
    layers: nn.ModuleList = base.base_model.layers
    for index, layer in enumerate(layers):
        layer.to(device)
        layers[index] = FullyShardedDataParallel(
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
    """Remove the FSDP wrappers, so that LoRA (not sharded) can be saved under its own names."""
    layers = base_model(model).base_model.layers
    for index, layer in enumerate(layers):
        layers[index] = layer.module
