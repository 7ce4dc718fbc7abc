"""KV cache of a batch: one preallocated buffer per layer, whose rows are reused.

All rows end at the same column and begin where their text begins (left padding). A finished row is
refilled with a new prompt while the others continue: the new keys are written so that they end at
the common column. A step writes one column and copies nothing, where a growing cache copies all of
itself; and since no address and no shape changes between steps, a GPU can capture a step as a graph
and replay it.
"""

from collections.abc import Sequence
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from tasks.core.models.device import GIB
from tasks.core.models.packed_forward import base_model

BLOCK = 64  # a step sees a multiple of this many columns, so that few graphs are captured
_SPARE_COLUMNS = 32  # beyond the longest row: steps between two shifts of the whole cache
# left for activations, dequantized weights and fragmentation: a share and a floor
_SPARE_SHARE, _SPARE_GIB = 0.12, 0.5
_CPU_ROWS = 16  # more of them are no faster on a CPU


class _StepLayer(DynamicLayer):  # type: ignore[misc]  # the library has no types
    """One layer's keys and values, [rows, heads, width, size]."""

    def __init__(self, owner: "KVCache") -> None:
        super().__init__()
        self.owner, self.is_initialized = owner, False

    def allocate(self, keys: Tensor, values: Tensor) -> None:
        """Allocate zeros: uninitialized memory may hold NaN, and masking does not remove a NaN.

        Keys and values may differ in heads and sizes (latent attention).
        """
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            rows, width = self.owner.rows, self.owner.width
            self.keys, self.values = (
                like.new_zeros(rows, like.shape[1], width, like.shape[3]) for like in (keys, values)
            )

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one column of all rows; returns views of all columns that are seen."""
        self.keys.index_copy_(2, self.owner.column, keys)
        self.values.index_copy_(2, self.owner.column, values)
        seen = self.owner.seen
        return self.keys[:, :, :seen], self.values[:, :, :seen]

    def get_seq_length(self) -> int:
        """Columns before the current one."""
        return self.owner.length - 1

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Number of columns seen, and the first of them."""
        return self.owner.seen, 0


class _PrefillLayer(DynamicLayer):  # type: ignore[misc]  # the library has no types
    """Writes the keys and values of new prompts to their rows; they attend to themselves only."""

    def __init__(self, layer: _StepLayer, rows: Tensor) -> None:
        super().__init__()
        self.layer, self.rows, self.end = layer, rows, layer.owner.length

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store the keys and values; returns them unchanged."""
        self.layer.allocate(keys, values)
        columns = slice(self.end - keys.shape[-2], self.end)
        self.layer.keys[self.rows, :, columns] = keys
        self.layer.values[self.rows, :, columns] = values
        return keys, values

    def get_seq_length(self) -> int:
        """A new row has no past."""
        return 0


class KVCache:
    """Keys and values of all layers for a number of rows.

    Attributes:
        cache: Passed to the model for a step of all rows.
        mask: bool[rows, width], where a row has text.
        rows: Number of rows.
        width: Columns of each.
        length: Columns in use.
        seen: Columns that a step attends to, a multiple of `BLOCK`.
        column: int64[1], the column that a step writes; a tensor, as a graph reads its address.
    """

    def __init__(self, model: Any, rows: int, longest: int) -> None:
        """A cache for `rows` rows of at most `longest` tokens."""
        self.rows, self.width = rows, width_of(longest)
        self.length = self.seen = 0
        device = device_of(model)
        self.column = torch.zeros(1, dtype=torch.int64, device=device)
        self.mask = torch.zeros(rows, self.width, dtype=torch.bool, device=device)
        self._layers = [_StepLayer(self) for _ in range(_text_config(model).num_hidden_layers)]
        self.cache = Cache(layers=list(self._layers))

    def prefill(self, rows: Sequence[int], mask: Tensor) -> Cache:
        """The cache for the first pass of new prompts, which end at the current length.

        Args:
            rows: Rows that they are written to.
            mask: int64[prompts, longest], padded on the left.
        """
        where = self._index(rows)
        self.mask[where] = False
        self.mask[where, self.length - mask.shape[1] : self.length] = mask.bool()
        return Cache(layers=[_PrefillLayer(layer, where) for layer in self._layers])

    def step(self) -> None:
        """Open the next column."""
        self.column.fill_(self.length)
        self.mask[:, self.length] = True
        self.length += 1
        self.seen = -(-self.length // BLOCK) * BLOCK

    def end_at(self, length: int) -> None:
        """Shift all rows so that they end at another column; what passes the left end is lost."""
        by = length - self.length
        kept = slice(max(0, -by), self.length)
        moved = slice(max(0, by), length)
        if by:
            for layer in self._layers:
                if layer.is_initialized:
                    layer.keys[:, :, moved] = layer.keys[:, :, kept].clone()
                    layer.values[:, :, moved] = layer.values[:, :, kept].clone()
        mask = self.mask[:, kept].clone()
        self.mask.zero_()
        self.mask[:, moved] = mask
        self.length = length

    def reshape(self, keep: Sequence[int], rows: int, longest: int) -> None:
        """Change the number of rows and the width; one layer at a time is held twice.

        Args:
            keep: Rows to keep; they become the first ones.
            rows: New number of rows, at least those.
            longest: New limit of tokens of a row, at least the columns in use.
        """
        where, width = self._index(keep), width_of(longest)
        columns = slice(0, self.length)

        def moved(old: Tensor) -> Tensor:
            new = old.new_zeros(rows, *old.shape[1:-2], width, old.shape[-1])
            new[: len(where), ..., columns, :] = old[where][..., columns, :]
            return new

        for layer in self._layers:
            layer.keys = moved(layer.keys)
            layer.values = moved(layer.values)
        self.mask = moved(self.mask[..., None])[..., 0]
        self.rows, self.width = rows, width

    def free(self) -> None:
        """Release the buffers now: the reference cycle with the layers would keep them."""
        for layer in self._layers:
            layer.keys = layer.values = torch.empty(0)
            layer.is_initialized = False

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(list(rows), dtype=torch.int64, device=self.mask.device)


def width_of(longest: int) -> int:
    """Columns for rows of at most `longest` tokens."""
    return -(-(longest + _SPARE_COLUMNS) // BLOCK) * BLOCK


def room_tokens(model: Any, vram_gib: float | None) -> tuple[int, int]:
    """Tokens that a cache in free memory can hold, and the most useful number of rows.

    Args:
        model: Loaded.
        vram_gib: Cap on the memory that PyTorch reserves on the GPU; None: all of it.
    """
    device, free = device_of(model), 0.0
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held
        if vram_gib is not None:
            free = min(free, vram_gib * GIB - held)
        most = 1024
    else:
        free, most = psutil.virtual_memory().available / 2, _CPU_ROWS
    room = free * (1 - _SPARE_SHARE) - _SPARE_GIB * GIB
    return int(max(0, room) // token_bytes(model)), most


@torch.inference_mode()
def token_bytes(model: Any) -> int:
    """Bytes that the model itself caches for a token; 320 KiB for stable-code-3b in 16 bit."""
    base = base_model(model)
    if not hasattr(base, "cached_bytes"):
        ids = torch.zeros(1, 2, dtype=torch.int64, device=device_of(model))
        layers = base(input_ids=ids, use_cache=True).past_key_values.layers
        total = sum(x.nbytes for layer in layers for x in (layer.keys, layer.values))
        base.cached_bytes = total // ids.shape[1]
    return int(base.cached_bytes)


def has_windows(model: Any, longest: int) -> bool:
    """Whether some layer attends to less than `longest` tokens (sliding window, as in Mistral)."""
    window = getattr(_text_config(model), "sliding_window", None)
    return window is not None and window < longest


def device_of(model: Any) -> torch.device:
    """Device of the model's embeddings."""
    return torch.device(model.get_input_embeddings().weight.device)


def _text_config(model: Any) -> Any:
    return model.config.get_text_config(decoder=True)
