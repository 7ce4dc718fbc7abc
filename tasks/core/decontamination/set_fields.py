"""What the lines of a user's evaluation set call their fields: read by the evaluation, which asks
their prompts, and by the filter, which keeps them out of the training data.

The standard library alone, because `finetune plan` reads these files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

NAMES: Mapping[str, Sequence[str]] = {
    "id": ("id", "task_id"),
    "entry": ("entry_point", "entry"),
    "solution": ("canonical_solution", "solution"),
    "answer": ("answer", "reference", "completion"),
    "tests": ("test", "tests", "test_list"),
}


def value_of(raw: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The value of a field by the first of its names that a line has."""
    names = NAMES.get(name, (name,))
    return next((raw[n] for n in names if raw.get(n) is not None), default)
