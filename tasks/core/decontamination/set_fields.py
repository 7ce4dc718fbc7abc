"""Names of the fields in a user's evaluation set.

The evaluation reads them to generate answers, the filter to keep the set out of the training data.
Uses the standard library alone, because `finetune plan` reads these files.
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
    """The value of a field, by the first of its names that the line contains."""
    names = NAMES.get(name, (name,))
    return next((raw[n] for n in names if raw.get(n) is not None), default)
