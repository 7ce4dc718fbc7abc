"""A source file cut into windows, and holes in it for infilling; pure.

Everything is decided by the path and the text, so another file changes no row of this one.
Positions are in bytes of UTF-8.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.core.languages.protocol import Boundary, ParsedSource, Span, SpanKind
from tasks.core.rows.hash_rank import RANKS, hash_rank

HOLES: tuple[SpanKind | str, ...] = ("expression", "statement", "block", "body", "line")
MAX_HOLE_BYTES = 1000
PREFIX_SHARE = 0.75  # of the window; what one side does not need goes to the other


class Hole(NamedTuple):
    """Text to fill in, with what is around it."""

    prefix: str
    middle: str
    suffix: str
    position: int

    def packed(self) -> str:
        """The hole as the column `conversation` holds it."""
        fill = {"prefix": self.prefix, "middle": self.middle, "suffix": self.suffix}
        return json.dumps({"fill": fill}, sort_keys=True, ensure_ascii=False)


class ContextWindow(NamedTuple):
    """A part of a file after other files and what is before it in its own.

    Attributes:
        files: (path, text) of the other files, the most needed last.
        before: Text of the same file before the part.
        output: The part.
        position: Where it begins.
    """

    files: list[tuple[str, str]]
    before: str
    output: str
    position: int

    def given(self) -> str:
        """All text that is not trained."""
        return "\n".join([*(text for _, text in self.files), self.before])

    def packed(self, **about: str) -> str:
        """The window as the column `conversation` holds it."""
        own = {"files": self.files, "before": self.before, "output": self.output}
        return json.dumps({"context": own | about}, sort_keys=True, ensure_ascii=False)


def context_windows(
    source: ParsedSource, data: bytes, files: Sequence[tuple[str, str]], max_bytes: int
) -> Iterator[ContextWindow]:
    """Windows of half of `max_bytes`, each after what fits into the rest.

    Args:
        source: The tree of `data`.
        data: The file.
        files: (path, text) of files that it needs, the most needed first.
        max_bytes: Of a window with what is before it.
    """
    for start, end in cut(data, source.boundaries(), max_bytes // 2):
        if not (output := data[start:end].decode().strip("\n")):
            continue
        room = max_bytes - (end - start)
        # the lines right before a window say most about it
        first = _line_start(data, start - room // 2, start)
        room -= start - first
        chosen: list[tuple[str, str]] = []
        for path, text in files:
            shown = text.encode()[: max(0, room)].decode("utf-8", "ignore")
            if shown := shown[: shown.rfind("\n") + 1]:
                chosen.insert(0, (path, shown))
                room -= len(shown.encode())
        yield ContextWindow(chosen, data[first:start].decode(), f"{output}\n", start)


def cut(data: bytes, boundaries: Sequence[Boundary], max_bytes: int) -> Iterator[Span]:
    """Windows that cover a file without overlap, of at most `max_bytes` each.

    A window ends where an item of the top level begins, else where one inside a definition does,
    else at the end of a line.
    """
    positions = [boundary.position for boundary in boundaries]
    start = 0
    while len(data) - start > max_bytes:
        # a window of less than a quarter would waste the rest of the model's context
        first = bisect_right(positions, start + max_bytes // 4)
        last = bisect_right(positions, start + max_bytes)
        if inside := boundaries[first:last]:
            depth = min(boundary.depth for boundary in inside)
            end = max(boundary.position for boundary in inside if boundary.depth == depth)
            end = data.rfind(b"\n", start, end) + 1 or end  # with the indentation of its line
        else:
            end = data.rfind(b"\n", start, start + max_bytes) + 1
        end = end if end > start else _aligned(data, start + max_bytes)
        yield start, end
        start = end
    if start < len(data):
        yield start, len(data)


def holes(
    source: ParsedSource,
    data: bytes,
    windows: Sequence[Span],
    path: str,
    per_window: int,
    character_share: float,
    max_bytes: int,
) -> Iterator[Hole]:
    """Holes of a file, no two alike, in the order of its windows.

    Args:
        source: The tree of `data`.
        data: The file.
        windows: Of the file; each gets up to `per_window` holes.
        path: Of the file; decides where holes are, together with the text of the window.
        per_window: Holes that are drawn for each window.
        character_share: Share of holes that begin and end anywhere, as an editor sends them.
        max_bytes: Of a hole with what is around it.
    """
    seen: set[Span] = set()
    for start, end in windows:
        for number in range(per_window):
            draws = hash_rank("hole", path, data[start:end].decode(), str(number), size=32)
            one, two, kind, way = (int.from_bytes(draws[i : i + 8], "big") for i in (0, 8, 16, 24))
            position = start + one * (end - start) // RANKS
            if way < character_share * RANKS:
                longest = min(MAX_HOLE_BYTES, end - position)
                stop = position + 1 + two * longest // RANKS
                span = (_aligned(data, position), _aligned(data, min(stop, end)))
            else:
                span = _drawn(source, data, position, kind * len(HOLES) // RANKS)
            if span[0] < span[1] and span not in seen and data[slice(*span)].strip():
                seen.add(span)
                yield _hole(data, span, max_bytes)


def _drawn(source: ParsedSource, data: bytes, position: int, first: int) -> Span:
    """The span of a kind around a position, beginning with kind number `first`; empty if none."""
    for kind in HOLES[first:] + HOLES[:first]:
        if kind == "line":
            end = data.find(b"\n", position)
            span = _aligned(data, position), end if end >= 0 else len(data)
        else:
            span = source.span(kind, position) or (0, 0)  # type: ignore[arg-type]
        text = data[slice(*span)]
        if len(text) <= MAX_HOLE_BYTES and len(text.strip()) > 1:
            return span
    return 0, 0


def _hole(data: bytes, span: Span, max_bytes: int) -> Hole:
    """A hole with as much around it as fits."""
    start, end = span
    room = max(0, max_bytes - (end - start))
    before = min(start, int(room * PREFIX_SHARE))
    after = min(len(data) - end, room - before)
    before = min(start, room - after)
    prefix = data[start - before : start].decode("utf-8", "ignore")
    suffix = data[end : end + after].decode("utf-8", "ignore")
    return Hole(prefix, data[start:end].decode(), suffix, start)


def _line_start(data: bytes, position: int, stop: int) -> int:
    """Where the first whole line at or after a position begins; `stop` if none does before it."""
    return data.find(b"\n", position - 1, stop) + 1 or stop if position > 0 else 0


def _aligned(data: bytes, position: int) -> int:
    """The position, moved to the begin of the character that it is in."""
    while position < len(data) and data[position] & 0xC0 == 0x80:
        position -= 1
    return position
