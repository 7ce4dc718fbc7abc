"""The project's home folder with artifacts/ and data/: FINETUNE_HOME, or else the repository.

Never the current directory, because a Prefect worker runs flows in a temporary folder.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def home() -> Path:
    """The folder of artifacts/ and data/."""
    return Path(os.environ.get("FINETUNE_HOME") or REPOSITORY).expanduser().resolve()


def resolve_path(path: str) -> Path:
    """A path from a profile; relative paths are relative to `home()`."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else home() / expanded


def short_path(path: str) -> str:
    """A path for the user: relative to the working folder or to `home()`, or below ~."""
    for folder, prefix in ((Path.cwd(), ""), (home(), ""), (Path.home(), "~/")):
        if path.startswith(f"{folder}/") and folder != Path("/"):
            return prefix + path[len(f"{folder}/") :]
    return path
