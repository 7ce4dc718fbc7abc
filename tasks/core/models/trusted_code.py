"""Code that comes with a model: whether a folder's Python files may be run.

The stage `base` notes it in the weights that it publishes where `base.trust_remote_code` says so,
and `merge` in what it makes of them. Nobody else is asked: a note in a folder from elsewhere could
be its author's.
"""

import json
from pathlib import Path

NOTE = "trusted_code.json"


def trust(folder: Path) -> None:
    """Note in a folder of ours that its Python files may be run."""
    files = sorted(file.name for file in folder.glob("*.py"))
    (folder / NOTE).write_text(json.dumps({"code": files}) + "\n", encoding="utf-8")


def is_trusted(folder: Path) -> bool:
    """Whether a folder that the pipeline made holds code that its settings trust."""
    return (folder / NOTE).is_file()
