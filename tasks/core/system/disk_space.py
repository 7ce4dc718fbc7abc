"""A full disk, in its many words: the system's error number, and what libraries make of it."""

import errno
import shutil
from pathlib import Path

from tasks.core.errors import PipelineError

NUMBERS = (errno.ENOSPC, errno.EDQUOT)
WORDS = (
    "no space left",  # safetensors
    "disk is full",  # SQLite
    "] . unexpected pos ",  # PyTorch's writer: less was written than it gave
)


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full."""
    text = str(error).lower()
    return getattr(error, "errno", None) in NUMBERS or any(word in text for word in WORDS)


def no_space(what: str, folder: Path, error: BaseException) -> PipelineError:
    """The disk is full; both numbers, and what was kept."""
    usage = shutil.disk_usage(folder)
    free, total = (f"{n / 2**30:.2f} GiB" for n in (usage.free, usage.total))
    return PipelineError(
        f"{what}: no space left in {folder}, {free} of {total} free ({error})",
        "Make room (`finetune gc --dry-run` lists what can go) and run again; finished stages are "
        "kept.",
    )
