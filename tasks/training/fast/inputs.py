"""What differs between windows, at addresses that stay: recorded passes read it."""

from typing import Any

import torch
from torch import Tensor

from tasks.core.models.packed_forward import WindowTensors
from tasks.training.fast import buffers
from tasks.training.fast.layer import Call, chunks, rows
from tasks.training.fast.model import FastModel
from tasks.training.fast.operands import Bounds, mix, signed


class Inputs:
    """Buffers of a window's inputs.

    Args:
        parts: The model.
        tokens: Of the longest window.
        device: Of the buffers.
    """

    def __init__(self, parts: FastModel, tokens: int, device: torch.device) -> None:
        def new(values: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(values, dtype=dtype, device=device)

        self._parts, half = parts, parts.heads.rotated // 2
        self._cos, self._sin = (new(tokens * half, torch.float32) for _ in range(2))
        self._starts, self._ends = (new(tokens, torch.int32) for _ in range(2))
        count = 4 * len(parts.layers) * len(chunks(tokens, buffers.MLP_CHUNK))
        self._seeds = new(count, torch.int32)

    def fill(self, window: WindowTensors, seed: int | None, ops: Any, flat: Tensor) -> Call:
        """Write a window's inputs; without a seed there is no dropout."""
        parts, tokens, half = self._parts, window.tokens, self._parts.heads.rotated // 2
        # the rotary module returns the type of its first argument: float32 tables are more accurate
        like = torch.empty(1, dtype=torch.float32, device=flat.device)
        tables = parts.rotary(like, window.position_ids)
        cos, sin = rows(self._cos, tokens, half), rows(self._sin, tokens, half)
        for to, table in zip((cos, sin), tables, strict=True):
            # transformers repeats the angles for both halves of the rotated features
            to.copy_(table[0, :, :half])
            if parts.rotation_scale != 1.0:
                to.mul_(parts.rotation_scale)
        bounds = sample_bounds(window)
        mixed = mix(seed or 0)
        if seed is not None and parts.dropout:
            self._fill_seeds(tokens, mixed)
        return Call(
            ops=ops,
            heads=parts.heads,
            bounds=Bounds(
                self._starts[:tokens].copy_(bounds.starts),
                self._ends[:tokens].copy_(bounds.ends),
                window.cu_seqlens,
            ),
            cos=cos,
            sin=sin,
            flat=flat,
            scale=parts.scale,
            rate=0.0 if seed is None else parts.dropout,
            seed=mixed,
            seeds=self._seeds,
            chunk=buffers.MLP_CHUNK,
        )

    def _fill_seeds(self, tokens: int, mixed: int) -> None:
        """Seeds of all dropout masks, in the order of `Call.seed_place`."""
        groups = range(4 * len(self._parts.layers))
        parts = chunks(tokens, buffers.MLP_CHUNK)
        seeds = torch.tensor(
            [signed(mix(mixed, group, part.start)) for group in groups for part in parts],
            dtype=torch.int32,
        )
        if self._seeds.is_cuda:
            seeds = seeds.pin_memory()
        self._seeds[: len(seeds)].copy_(seeds, non_blocking=True)


def sample_bounds(window: WindowTensors) -> Bounds:
    """Start and end of each token's sample, computed on the device without waiting for it."""
    tokens = torch.arange(window.tokens, device=window.cu_seqlens.device)
    sample = torch.searchsorted(window.cu_seqlens, tokens, right=True)
    return Bounds(
        starts=(tokens - window.position_ids[0]).to(torch.int32),
        ends=window.cu_seqlens.index_select(0, sample).to(torch.int32),
        cu_seqlens=window.cu_seqlens,
    )
