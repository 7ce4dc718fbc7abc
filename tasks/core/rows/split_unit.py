"""The unit of the split in words, for summary, report, model card, gate and `finetune show`.

Rows of one unit are alike, so a unit is one observation of the evaluation.
"""

from collections.abc import Mapping
from typing import Any

PROJECT, ROW = "project", "row"
# a test of signs can reach 5 % only from six on: 2 of 2^6 ways to choose them are as extreme
FEWEST_CLUSTERS = 6


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


def split_sentence(split: Mapping[str, Any]) -> str:
    """`split_words` as a sentence."""
    return f"S{split_words(split)[1:]}."


def held_out_units(unit: str, number: int) -> str:
    """The end of the summary of a split by `unit`; rows and projects, which it names already, are
    named only if they are too few."""
    is_enough = number >= FEWEST_CLUSTERS
    if is_enough and unit in (PROJECT, ROW):
        return ""
    found = f", {count_of(number, unit)} held out for the evaluation"
    if is_enough:
        return found
    return f"{found}: too few for a verdict, at least {FEWEST_CLUSTERS} are needed"
