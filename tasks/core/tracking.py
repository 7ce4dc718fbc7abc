"""Items that report how many of them are done.

Apart from `tasks.core.progress`, which is in no key: what goes through here can reach an output.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tasks.core.progress import report

T = TypeVar("T")


def track(items: Iterable[T], label: str, total: float | None = None) -> Iterator[T]:
    """Yield `items`, reporting after each; `total` defaults to their length where they have one."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    report(label, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        report(label, done, total)
