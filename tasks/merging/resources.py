"""Checks of disk space and memory before anything is written, as a merge takes up to an hour."""

import shutil
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types

from tasks.core.errors import PipelineError
from tasks.core.models.device import GIB

SPARE_GIB = 0.5  # of disk, left free
RUNTIME_GIB = 1.0  # Python, PyTorch, activations of one sample


def check_disk(
    folder: Path, model_bytes: int, copies: int, gguf_bytes: int = 0, present_bytes: int = 0
) -> None:
    """Check that `copies` of the merged model fit on the disk, and later one with its GGUF files.

    Args:
        folder: On that disk.
        model_bytes: Size of one copy.
        copies: At the same time, before the best is selected.
        gguf_bytes: Of the files written after that.
        present_bytes: Of all these, already written by an interrupted run.

    Raises:
        PipelineError: They don't fit.
    """
    wanted = max(copies * model_bytes, model_bytes + gguf_bytes)
    needed = max(0, wanted - present_bytes) / GIB + SPARE_GIB
    free = shutil.disk_usage(folder).free / GIB
    if free < needed:
        less = " or set merge.strategy to base16, which writes one copy" if copies > 1 else ""
        raise PipelineError(
            f"merging needs {needed:.1f} GiB of disk and {free:.1f} GiB are free",
            f"Free {needed - free:.1f} GiB{less}.",
        )


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_memory(model_bytes: int, largest_shard: int, expert_bytes: int = 0) -> float:
    """Check that the merged model can be loaded and measured; returns the GiB needed.

    Args:
        model_bytes: Size of the merged model.
        largest_shard: Size of its largest file.
        expert_bytes: Of the updates of one layer's fused experts, in 32 bit.

    Raises:
        PipelineError: Too little memory is available.
    """
    # Merging holds the 4-bit base (more than a quarter of 16 bit, as head and embeddings are not
    # quantized) and one shard in 16 bit; as much again is for the tensors being dequantized.
    # Measuring holds the merged model alone.
    merging = model_bytes / 2 + 2 * largest_shard + 2 * expert_bytes
    needed = max(merging, model_bytes) / GIB + RUNTIME_GIB
    free = psutil.virtual_memory().available / GIB
    if free < needed:
        raise PipelineError(
            f"merging needs {needed:.1f} GiB of memory and {free:.1f} GiB are available",
            "Close other programs, or merge on a machine with more memory.",
        )
    return needed
