"""Disk and memory, asked before anything is written: a merge that dies halfway wastes an hour."""

import shutil
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types

from tasks.core.errors import PipelineError

GIB = 2**30
SPARE_GIB = 0.5  # of disk, left for everything else
RUNTIME_GIB = 1.0  # Python, PyTorch, activations of one sample


def check_disk(folder: Path, model_bytes: int, copies: int) -> None:
    """See that `copies` of the merged model fit beside what is there.

    Raises:
        PipelineError: They don't.
    """
    needed, free = copies * model_bytes / GIB + SPARE_GIB, shutil.disk_usage(folder).free / GIB
    if free < needed:
        less = " or set merge.strategy to base16, which writes one copy" if copies > 1 else ""
        raise PipelineError(
            f"merging needs {needed:.1f} GiB of disk and {free:.1f} GiB are free",
            f"Free {needed - free:.1f} GiB{less}.",
        )


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
