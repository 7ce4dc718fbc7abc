"""Where artifacts/ and data/ lie: FINETUNE_HOME, by default the repository that this file stands
in.

Never the current directory: a Prefect worker runs flows from a temporary folder.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def home() -> Path:
    """Root of artifacts/ and data/."""
    return Path(os.environ.get("FINETUNE_HOME") or REPOSITORY).expanduser().resolve()


def resolve_path(path: str) -> Path:
    """A path from a profile; a relative one starts at `home()`."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else home() / expanded
