"""Lines of text files with bounded memory; shared by the text formats.

The limits are attributes of this module and are read at each use, so that tests can lower them.
"""

from collections.abc import Iterator
from typing import IO, AnyStr

MAX_RECORD = 16 << 20  # characters or bytes; a longer record would only take memory
READ_CHARACTERS = 1 << 20


def too_long() -> str:
    """The problem of a record that is over the limit."""
    return f"longer than {MAX_RECORD:,} bytes"


def numbered_lines(
    file: IO[AnyStr], newlines: tuple[AnyStr, ...]
) -> Iterator[tuple[int, AnyStr | None]]:
    """Lines with their 1-based numbers; None for a line over `MAX_RECORD`, which is read in pieces
    and never held as a whole."""
    number = 0
    while line := file.readline(MAX_RECORD):
        number += 1
        if len(line) < MAX_RECORD or line.endswith(newlines):
            yield number, line
            continue
        while (rest := file.readline(MAX_RECORD)) and not rest.endswith(newlines):
            pass
        yield number, None
