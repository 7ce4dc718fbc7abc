"""Full disks: recognizes the error that means one, and reports the free space.

Libraries rarely pass on the system's error number, so their messages are compared, too.
"""

import errno
import shutil
from pathlib import Path

from tasks.core.errors import PipelineError

ERROR_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
MESSAGES = (
    "no space left",  # safetensors
    "disk is full",  # SQLite
    "] . unexpected pos ",  # PyTorch's writer: fewer bytes were written than it passed
)


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full."""
    text = str(error).lower()
    return getattr(error, "errno", None) in ERROR_NUMBERS or any(
        message in text for message in MESSAGES
    )


def no_space(what: str, folder: Path, error: BaseException) -> PipelineError:
    """The error for the user: free and total space, and what is kept.

    Args:
        what: What failed, such as "stage train".
        folder: A folder on the full disk.
        error: The original error.
    """
    usage = shutil.disk_usage(folder)
    free, total = (f"{n / 2**30:.2f} GiB" for n in (usage.free, usage.total))
    return PipelineError(
        f"{what}: no space left in {folder}, {free} of {total} free ({error})",
        "Free some space (`finetune gc --dry-run` lists what can be removed) and run again; "
        "finished stages are kept.",
    )
