"""Buffers of the fused stepper: allocated once for the longest window, shared by all layers.

Sizes are known to the byte beforehand (`kept_bytes`, `fixed_bytes`);
`tasks/core/models/memory_estimate.py` repeats them for the plan, which must not import torch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.training.fast.layer.state import Saved, Scratch
from tasks.training.fast.model.weights import FastModel
from tasks.training.fast.ops.operands import Packed, pack_groups

# `memory_estimate` repeats both
MLP_CHUNK = 8192  # tokens per chunk of the MLP; bounds the buffers of longer windows
HEAD_VALUES = 2**26  # logits in memory at a time: 128 MiB in bfloat16


@dataclass(frozen=True)
class Stream:
    """The residual stream before every trained layer and after the last one, or what else is saved
    for each of them.

    Attributes:
        device: One buffer per index; with `host` fewer, used alternately.
        host: One pinned buffer per index that is saved, or empty without offloading.
    """

    device: tuple[Tensor, ...]
    host: tuple[Tensor, ...]

    def at(self, index: int, tokens: int) -> Tensor:
        """The stream's buffer at `index` on the device, [tokens, hidden]."""
        return self.device[index % len(self.device)][:tokens]

    def save(self, index: int, tokens: int) -> None:
        """Keep the stream at `index` for the backward pass.

        Copies are asynchronous but in order with the kernels: all use the same CUDA stream, so a
        buffer is overwritten only after it was copied.
        """
        if self.host:
            self.host[index][:tokens].copy_(self.at(index, tokens), non_blocking=True)

    def load(self, index: int, tokens: int) -> Tensor:
        """The stream at `index` in the backward pass, on the device."""
        x = self.at(index, tokens)
        return x.copy_(self.host[index][:tokens], non_blocking=True) if self.host else x


@dataclass(frozen=True)
class Buffers:
    """All buffers of a step, for windows of at most `tokens`."""

    tokens: int
    stream: Stream
    branches: Stream  # `Saved.branch2` of the trained layers; empty without norms after branches
    saved: tuple[Saved, ...]
    sides: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]
    scratch: Scratch
    grad: Tensor
    logits: Tensor


def allocate(
    parts: FastModel,
    tokens: int,
    kept_layers: int,
    device: torch.device,
    *,
    offload: bool,
    wide: bool = False,
) -> Buffers:
    """All buffers for windows of at most `tokens`; `wide`: with `Scratch.wide`."""
    layers, chunk, kind = parts.layers, min(tokens, MLP_CHUNK), parts.head.dtype

    def new(*shape: int, dtype: torch.dtype = kind) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    def gate_up() -> Tensor | Packed:
        if kind.itemsize > 2:
            return new(tokens, parts.gate_up)
        scales = new(tokens, _scales(parts), dtype=torch.float32)
        return Packed(new(tokens, parts.gate_up, dtype=torch.int8), scales)

    def saved(kept: bool) -> Saved:
        return Saved(
            qkv=new(tokens * parts.heads.width),
            out=new(tokens * parts.widest("out")),
            lse=new(tokens * parts.heads.queries, dtype=torch.float32),
            middle=new(tokens * parts.hidden),
            gate_up=gate_up() if kept else None,
            unnormed=new(tokens * parts.unnormed_width) if parts.unnormed_width else None,
            branch1=new(tokens, parts.hidden) if parts.branches else None,
        )

    hidden = max(map(parts.widest, ("qkv", "out", "gate_up")))  # `down` has `act_grad`
    scratch = Scratch(
        normed1=new(tokens * parts.widest("qkv")),
        normed2=new(chunk * parts.widest("gate_up")),
        act=new(_act_values(parts, tokens)),
        gate_up=new(chunk * parts.gate_up),
        grad=new(tokens * hidden),
        act_grad=new(chunk * parts.widest("down")),
        qkv_grad=new(tokens * parts.heads.width),
        weight=new(_weight_values(parts)),
        row_scales=new(tokens, dtype=torch.float32),
        branch_grad=new(tokens * parts.hidden if parts.branches else 0),
        wide=new(tokens * parts.hidden if wide else 0, dtype=torch.float32),
    )
    trained = len(layers) - parts.first_trained
    branches = trained if parts.branches else 0

    def stream(count: int, hosts: int) -> Stream:
        pinned, shape = device.type == "cuda", (tokens, parts.hidden)
        on_host = range(hosts if offload else 0)
        return Stream(
            tuple(new(*shape) for _ in range(count)),
            tuple(torch.empty(shape, dtype=kind, pin_memory=pinned) for _ in on_host),
        )

    return Buffers(
        tokens=tokens,
        stream=stream(2 if offload else trained + 1, trained),
        branches=stream(min(1, branches) if offload else branches, branches),
        saved=tuple(saved(i < kept_layers) for i in range(min(kept_layers + 1, len(layers)))),
        sides=tuple(
            tuple(new(tokens * group.loras * group.rank) for group in layer.groups)  # type: ignore[misc]
            for layer in layers[parts.first_trained :]
        ),
        scratch=scratch,
        grad=new(tokens, parts.hidden),
        logits=new(max(1, min(tokens, HEAD_VALUES // len(parts.head))), len(parts.head)),
    )


def _act_values(parts: FastModel, tokens: int) -> int:
    """Of `Scratch.act`, which also holds the widest gradient in 8 bit."""
    chunk, size = min(tokens, MLP_CHUNK), parts.head.element_size()
    widest = max(chunk * parts.gate_up, tokens * max(parts.heads.width, parts.hidden))
    return max(chunk * parts.widest("down"), -(-widest // size))


def _scales(parts: FastModel) -> int:
    """Scales of gate and up in 8 bit per token."""
    return parts.gate_up // parts.inner * pack_groups(parts.inner)


def _weight_values(parts: FastModel) -> int:
    return max(group.rows * group.width for layer in parts.layers for group in layer.groups)


def kept_bytes(parts: FastModel, tokens: int) -> int:
    """Bytes of one kept layer's `Saved`."""
    size, gate_up = parts.head.element_size(), parts.gate_up
    kept = 4 * _scales(parts) + gate_up if size == 2 else size * gate_up
    return shared_bytes(parts, tokens) + tokens * kept


def shared_bytes(parts: FastModel, tokens: int) -> int:
    """Bytes of the `Saved` of all layers that are not kept; it exists if there is one."""
    values = parts.heads.width + parts.unnormed_width + parts.widest("out")
    values += (2 if parts.branches else 1) * parts.hidden
    return tokens * (values * parts.head.element_size() + 4 * parts.heads.queries)


def fixed_bytes(parts: FastModel, tokens: int, offload: bool = False, *, wide: bool = False) -> int:
    """Bytes of all buffers on the device with no layer kept; `wide`: with `Scratch.wide`."""
    size, chunk = parts.head.element_size(), min(tokens, MLP_CHUNK)
    trained = len(parts.layers) - parts.first_trained
    stream = 3 if offload else trained + 2
    widest = max(map(parts.widest, ("qkv", "out", "gate_up")))
    if parts.branches:  # the gradient of one, and the MLP's
        stream += 2 if offload else trained + 1
    a_token = stream * parts.hidden + parts.widest("qkv") + widest + parts.heads.width
    a_chunk = parts.widest("gate_up") + parts.widest("down") + parts.gate_up
    logits = min(HEAD_VALUES, tokens * len(parts.head))
    sides = sum(g.loras * g.rank for one in parts.layers for g in one.groups)
    values = tokens * (a_token + sides) + chunk * a_chunk + logits
    values += _act_values(parts, tokens) + _weight_values(parts)
    singles = tokens * (1 + (parts.hidden if wide else 0))
    return values * size + 4 * singles + shared_bytes(parts, tokens)
