"""What differs between windows, at addresses that stay: recorded passes read it."""

from typing import Any

import torch
from torch import Tensor

from tasks.core.models.packed_forward import WindowTensors
from tasks.training.fast import buffers
from tasks.training.fast.layer.state import Call, chunks, rows
from tasks.training.fast.model.weights import FastModel
from tasks.training.fast.ops.dropout import mix, signed
from tasks.training.fast.ops.operands import Bounds


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
        self._tables = {
            name: (new(tokens * half, torch.float32), new(tokens * half, torch.float32))
            for name in parts.rotations
        }
        self._bounds = {
            window: (new(tokens, torch.int32), new(tokens, torch.int32)) for window in parts.windows
        }
        count = 4 * len(parts.layers) * len(chunks(tokens, buffers.MLP_CHUNK))
        self._seeds = new(count, torch.int32)

    def fill(self, window: WindowTensors, seed: int | None, ops: Any, flat: Tensor) -> Call:
        """Write a window's inputs; without a seed there is no dropout."""
        parts, mixed = self._parts, mix(seed or 0)
        if seed is not None and parts.dropout:
            self._fill_seeds(window.tokens, mixed)
        return Call(
            ops=ops,
            heads=parts.heads,
            tokens=window.tokens,
            bounds=self._fill_bounds(window),
            tables={name: self._fill_table(name, window) for name in self._tables},
            flat=flat,
            scale=parts.scale,
            rate=0.0 if seed is None else parts.dropout,
            seed=mixed,
            seeds=self._seeds,
            chunk=buffers.MLP_CHUNK,
        )

    def _fill_table(self, name: str, window: WindowTensors) -> tuple[Tensor, Tensor]:
        """cos and sin of one rotation, each angle once."""
        half = self._parts.heads.rotated // 2
        cos, sin = (rows(buffer, window.tokens, half) for buffer in self._tables[name])
        # the rotary module returns the type of its first argument: float32 tables are more accurate
        like = torch.empty(1, dtype=torch.float32, device=cos.device)
        assert self._parts.rotary is not None, "a layer that rotates has tables"
        found = self._parts.rotary(like, window.position_ids, *([name] if name else []))
        # transformers repeats the angles for both halves of the rotated features, or for each pair
        once = slice(0, None, 2) if self._parts.heads.adjacent_pairs else slice(0, half)
        return cos.copy_(found[0][0, :, once]), sin.copy_(found[1][0, :, once])

    def _fill_bounds(self, window: WindowTensors) -> dict[int, Bounds]:
        found = sample_bounds(window)
        at = torch.arange(window.tokens, dtype=torch.int32, device=found.starts.device)
        filled = {}
        for size, buffers_of in self._bounds.items():
            starts, ends = (buffer[: window.tokens] for buffer in buffers_of)
            starts.copy_(found.starts)
            ends.copy_(found.ends)
            if size:
                torch.maximum(starts, at - (size - 1), out=starts)
                torch.minimum(ends, at + size, out=ends)
            filled[size] = Bounds(starts, ends, window.cu_seqlens, size)
        return filled

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
