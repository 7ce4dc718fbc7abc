"""A fault that `finetune doctor` reports, with its remedy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        name: What was checked.
        problem: What was found, and what is expected.
        remedy: What to do, as an imperative sentence.
        fix: Applies the remedy; None if the decision is the user's.
    """

    name: str
    problem: str
    remedy: str
    fix: Callable[[], None] | None = None


Check = Callable[[], Sequence[Finding]]
