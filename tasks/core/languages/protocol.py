"""Protocol of a parsed source text and its functions.

The filter rules and the decontamination read a tree through these members only, so another language
needs no change there. Every member is computed on access: most rows need only a few of them.
"""

from collections.abc import Hashable, Iterator
from typing import Protocol


class ParsedFunction(Protocol):
    """One function or method."""

    @property
    def name(self) -> str:
        """Its own name, without that of a class."""
        ...

    @property
    def docstring(self) -> str:
        """Its documentation; "" if it has none."""
        ...

    @property
    def argument_count(self) -> int:
        """Arguments that a caller gives; a receiver such as `self` does not count."""
        ...

    @property
    def returned_values(self) -> int:
        """Return statements with a value, those of nested functions excluded."""
        ...

    @property
    def is_distinctive(self) -> bool:
        """Whether its shape says what it does: it has several statements, or a long one. Anyone
        writes `return a + b`."""
        ...

    def outline(self) -> Hashable:
        """A cheap summary; functions with equal shapes have equal outlines."""
        ...

    def shape(self) -> bytes | None:
        """Digest of the tree without formatting and local names; None if the tree is too deep."""
        ...


class ParsedSource(Protocol):
    """One source text."""

    def functions(self) -> Iterator[ParsedFunction]:
        """Functions at the top level, in their order."""
        ...

    def functions_and_methods(self) -> Iterator[ParsedFunction]:
        """The same with the methods of top-level classes, in their order."""
        ...
