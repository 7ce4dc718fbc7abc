"""What `finetune doctor` finds: a fault or a note, with its remedy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One fault, or a note about something that `finetune run` works without.

    Attributes:
        name: What was checked.
        problem: What was found, and what is expected.
        remedy: What to do, as an imperative sentence.
        fix: Applies the remedy; None if the decision is the user's.
        is_note: `finetune run` works in spite of it.
    """

    name: str
    problem: str
    remedy: str
    fix: Callable[[], None] | None = None
    is_note: bool = False


Check = Callable[[], Sequence[Finding]]
