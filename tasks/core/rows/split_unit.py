"""The unit of the split in words, for summary, report, model card, gate and `finetune show`."""

from collections.abc import Mapping
from typing import Any

PROJECT, ROW = "project", "row"


def plural(noun: str, number: float) -> str:
    """ "file" or "files"."""
    return noun if number == 1 else f"{noun}s"


def count_of(number: int, noun: str) -> str:
    """ "1 file" or "1,200 files"."""
    return f"{number:,} {plural(noun, number)}"


def split_words(split: Mapping[str, Any]) -> str:
    """How the rows were split, by split.json of the stage prompt."""
    unit, projects = split["unit"], split["projects"]["all"]
    if unit == ROW:
        return "split by row: no row names a project"
    of = f" of {count_of(projects, PROJECT)}" if projects and unit != PROJECT else ""
    return f"split by {unit}: {count_of(sum(split['units'].values()), unit)}{of}"
