"""Full disks: recognizes the error that means one, names the disk, and says how to free space.

Libraries rarely pass on the system's error number or the file, so their messages are compared, and
the disk is found by its free space.
"""

import errno
import os
import shutil
import tempfile
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


def no_space(what: str, artifacts: Path, error: BaseException) -> PipelineError:
    """The error for the user: which disk is full, its free and total space, and what to remove.

    Args:
        what: What failed, such as "stage train".
        artifacts: The artifacts folder.
        error: The original error.
    """
    places = [artifacts, Path(tempfile.gettempdir())]
    if isinstance(file := getattr(error, "filename", None), str):
        places.insert(0, Path(file).parent)
    place = min((p for p in places if p.is_dir()), key=lambda p: shutil.disk_usage(p).free)
    usage = shutil.disk_usage(place)
    free, total = (f"{n / 2**30:.2f} GiB" for n in (usage.free, usage.total))
    remedy = f"Remove files below {_mount(place)}, or set TMPDIR to a folder on a larger disk; "
    if place.stat().st_dev == artifacts.stat().st_dev:
        remedy = (
            "Run `finetune gc --keep-last 1 --keep-days 0`, which keeps what the last finished "
            "run uses (add --dry-run to see what it frees), or remove other files there; "
        )
    return PipelineError(
        f"{what}: no space left on {_mount(place)}, which holds {place}: {free} of {total} free "
        f"({error})",
        f"{remedy}then run again: finished stages are kept.",
    )


def _mount(folder: Path) -> Path:
    """The folder where the disk of `folder` is mounted."""
    path = folder.resolve()
    while not os.path.ismount(path):
        path = path.parent
    return path
