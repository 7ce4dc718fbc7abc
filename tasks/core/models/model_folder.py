"""A model folder as transformers saves it: names of its files, links to large ones.

Standard library only: `finetune plan` reads it.
"""

import os
import shutil
from pathlib import Path

INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"


def is_license(name: str) -> bool:
    """Whether a file is a license or a notice, by its name."""
    return name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Hard-link a file, so that gigabytes exist once; copy it where the file system can't link."""
    real = Path(source).resolve()  # the hub's cache holds symbolic links, which must not be linked
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
