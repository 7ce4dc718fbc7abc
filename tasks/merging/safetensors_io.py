"""Copies safetensors tensor by tensor, changing them: at most one output file is in memory."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tasks.core.errors import PipelineError
from tasks.core.models.model_folder import INDEX_FILE, WEIGHTS_FILE
from tasks.core.system.atomic_write import written_whole
from tasks.core.tracking import track
from tasks.merging.row_blocks import in_order

FLOATS = ("F64", "F32", "F16", "BF16")
SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BOOL": 1, "U8": 1, "I8": 1}

Change = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the base.

    Attributes:
        file: The safetensors file that holds it.
        name: Its name.
        shape: Its dimensions.
        size: Bytes in the merged model, whose floats have 16 bits.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    size: int

    @property
    def parameters(self) -> int:
        """Its number of elements."""
        return prod(self.shape)


def list_tensors(folder: Path) -> list[TensorInfo]:
    """Every tensor of a model folder, from the headers alone, ordered by file and name.

    Raises:
        PipelineError: The folder holds no safetensors.
    """
    entries = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                part = tensors.get_slice(name)
                shape, kind = tuple(part.get_shape()), part.get_dtype()
                width = 2 if kind in FLOATS else SIZES.get(kind, 2)
                entries.append(TensorInfo(file, name, shape, prod(shape) * width))
    if not entries:
        raise PipelineError(f"{folder} holds no safetensors", "Run the stage base again.")
    return entries


def plan_shards(entries: Sequence[TensorInfo], max_bytes: int) -> list[list[TensorInfo]]:
    """Group the tensors into files of at most `max_bytes`; a larger tensor gets its own file."""
    shards: list[list[TensorInfo]] = [[]]
    for entry in entries:
        if shards[-1] and sum(e.size for e in shards[-1]) + entry.size > max_bytes:
            shards.append([])
        shards[-1].append(entry)
    return shards


def write_shards(
    shards: Sequence[Sequence[TensorInfo]],
    out: Path,
    dtype: torch.dtype,
    change: Change,
    label: str,
) -> None:
    """Write the shards and, for more than one, the index, with the names of transformers.

    An existing shard is complete, as each appears by one rename: it is not written again.

    Args:
        shards: From `plan_shards`.
        out: Existing folder; any shards in it must be of the same merge.
        dtype: Of all floating-point tensors.
        change: Applied to each tensor before it is rounded to `dtype`.
        label: Of the progress.
    """
    for number, entries in enumerate(track(shards, label), 1):
        file = out / _name(number, len(shards))
        if file.exists():
            continue
        changed = in_order(partial(_changed, change=change, dtype=dtype), entries)
        _save(dict(zip((entry.name for entry in entries), changed, strict=True)), file)
    if len(shards) > 1:
        total = sum(entry.size for entries in shards for entry in entries)
        where = {
            entry.name: _name(number, len(shards))
            for number, entries in enumerate(shards, 1)
            for entry in entries
        }
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (out / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _name(number: int, count: int) -> str:
    """The file name of a shard in transformers."""
    if count == 1:
        return WEIGHTS_FILE
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    """Write a shard atomically and durably: after a power cut, it is complete or missing."""
    with written_whole(file) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
        # safetensors closes its files to others; these are as open as the rest of the model
        temporary.chmod(file.parent.stat().st_mode & 0o666)


def _changed(entry: TensorInfo, change: Change, dtype: torch.dtype) -> Tensor:
    with safe_open(entry.file, framework="pt") as source:
        tensor = change(entry.name, source.get_tensor(entry.name))
    return _rounded(tensor, dtype, entry.name).contiguous()


def _rounded(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    rounded = tensor.to(dtype)
    # the extremes are NaN if a value is; a tenth of the time of isfinite for each value
    if rounded.numel() and not all(map(torch.isfinite, torch.aminmax(rounded))):
        largest = float(tensor.abs().max())
        raise PipelineError(
            f"{name} reaches {largest:.3g}, which {str(dtype).removeprefix('torch.')} can't hold",
            "Set merge.dtype to bfloat16; if it is that, the adapter holds infinite values.",
        )
    return rounded
