"""What a kind of untouched texts provides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ProbeTexts:
    """One kind of untouched texts.

    Attributes:
        name: Of its row set.
        read: Text id -> text, of all there are. Raises PipelineError where they can't be read.
    """

    name: str
    read: Callable[[], Mapping[str, str]]
