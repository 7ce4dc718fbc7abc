"""Disk and memory, asked before anything is written: a merge that dies halfway wastes an hour."""

import shutil
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types

from tasks.core.errors import PipelineError

GIB = 2**30
SPARE_GIB = 0.5  # of disk, left for everything else
RUNTIME_GIB = 1.0  # Python, PyTorch, activations of one sample


def check_disk(
    folder: Path, model_bytes: int, copies: int, gguf_bytes: int = 0, present_bytes: int = 0
) -> None:
    """See that `copies` of the merged model fit beside what is there, then one and its GGUF files.

    Args:
        folder: Where they go.
        model_bytes: Of one copy.
        copies: At one time, before the best is kept.
        gguf_bytes: Of the files written once it is.
        present_bytes: Of these, there already from a run that was killed.

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


def check_memory(model_bytes: int, largest_shard: int) -> float:
    """See that the merged model can be loaded to be measured; returns the GiB needed.

    Raises:
        PipelineError: It can't.
    """
    # merging: the 4-bit base (over a quarter of 16 bit, head and embeddings whole) and one shard,
    # in 16 bit and, for the tensor at work, in 32 bit; measuring: the merged model alone
    merging = model_bytes / 2 + 2 * largest_shard
    needed = max(merging, model_bytes) / GIB + RUNTIME_GIB
    free = psutil.virtual_memory().available / GIB
    if free < needed:
        raise PipelineError(
            f"merging needs {needed:.1f} GiB of memory and {free:.1f} GiB are available",
            "Close other programs, or merge on a machine with more memory.",
        )
    return needed
