"""Remote code: whether the Python files in a model folder may be run.

The stage `base` writes a marker file into its weights if `base.trust_remote_code` is set, and
`merge` copies it. Only folders written by these stages are checked for it: in a folder from
elsewhere the marker could come from the code's author.
"""

import json
from pathlib import Path

NOTE = "trusted_code.json"


def trust(folder: Path) -> None:
    """Mark a folder written by a stage: its Python files may be run."""
    files = sorted(file.name for file in folder.glob("*.py"))
    (folder / NOTE).write_text(json.dumps({"code": files}) + "\n", encoding="utf-8")


def is_trusted(folder: Path) -> bool:
    """Whether a folder written by a stage is marked."""
    return (folder / NOTE).is_file()
