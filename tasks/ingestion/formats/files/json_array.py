"""JSON: an array of objects, the list of an enclosing object, or objects one after another, decoded
piece by piece.

A file is never held as a whole: a window of it is decoded and refilled. After a malformed object,
reading continues where the next one seems to begin.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TextIO

from tasks.ingestion.formats.files import text_lines
from tasks.ingestion.formats.files.compression import open_text
from tasks.ingestion.formats.files.json_layout import BLANK_OR_COMMA, enclosed_list
from tasks.ingestion.formats.files.protocol import (
    FileFormat,
    Record,
    Records,
    UnreadableRecord,
    not_an_object,
)

# characters; longer than any token of JSON except texts and numbers, so an error that is this far
# from the end of the window is not caused by the end
MARGIN = 64
COMMENT_CHARACTERS = 10  # after the place of an error, in which a comment may begin
OTHER_LIST = re.compile(r'"([^"\\]+)"\s*:\s*\[\s*\{')  # after the list that is read
# an object after the end of another one, or at the beginning of a line
NEXT_OBJECT = re.compile(r"(?:\}\s*,?\s*|\n[ \t]*)(?=\{)")


def _read(path: Path, _columns: Collection[str] | None) -> Records:
    enclosed = enclosed_list(path)
    with open_text(path) as file:
        window = _JsonWindow(file)
        if enclosed:
            place, window.line = enclosed
            file.read(place)
            yield from _items(window, depth=1, is_enclosed=True)
            return
        window.skip(BLANK_OR_COMMA)
        if window.peek(1) not in ("[", "{"):
            problem = "the file contains no JSON array of objects"
            yield UnreadableRecord(window.line, problem, window.peek())
            return
        depth = int(window.peek(1) == "[")  # brackets that are open
        window.advance(window.at + depth)
        yield from _items(window, depth, is_enclosed=False)


def _items(window: "_JsonWindow", depth: int, is_enclosed: bool) -> Records:
    """The objects of an array.

    Args:
        window: At its first item.
        depth: Brackets that are open.
        is_enclosed: Whether an object encloses the array: what follows the array is then left out.
    """
    while True:
        window.skip(BLANK_OR_COMMA)
        if window.peek(1) == "]":
            depth -= 1
            window.advance(window.at + 1)
            if is_enclosed and not depth:
                window.skip(BLANK_OR_COMMA)
                if other := OTHER_LIST.match(window.peek()):
                    problem = f"the file holds more than one list: {other[1]!r} is not read"
                    yield UnreadableRecord(window.line, problem, window.peek())
                return
            window.skip(BLANK_OR_COMMA)
            if depth or not window.peek(1):
                continue
            problem = "text after the end of the JSON array"
            yield UnreadableRecord(window.line, problem, window.peek())
        if not window.peek(1) and depth <= 0:
            return
        try:
            values, end = window.decode()
        except (ValueError, RecursionError) as error:
            message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            message += window.hint(error)
            line, shown = window.line, window.peek()
            goes_on = window.skip_to_next_object()
            rest = "" if goes_on else "; the rest of the file is left out"
            yield UnreadableRecord(line, f"malformed JSON: {message}{rest}", shown)
            if not goes_on:
                return
            continue
        is_object = isinstance(values, dict)
        item = Record(window.line, values) if is_object else not_an_object(window.line, values)
        yield item
        is_problem = isinstance(item, UnreadableRecord)
        if (
            is_problem
            and isinstance(values, list)
            and any(isinstance(value, dict) for value in values)
        ):
            # a stray bracket encloses good objects: enter it and read them one by one
            depth += 1
            end = window.at + 1
        window.advance(end)


class _JsonWindow:
    """The part of a text file that is in memory.

    Attributes:
        at: Position in that part, up to which everything has been read.
        line: 1-based line of that position in the file.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._decoder = json.JSONDecoder()
        self.at = 0
        self.line = 1

    def peek(self, characters: int = 200) -> str:
        """The next characters."""
        return self._text[self.at : self.at + characters]

    def advance(self, to: int) -> None:
        """Move the position forward, counting lines."""
        self.line += self._text.count("\n", self.at, to)
        self.at = to

    def skip(self, pattern: re.Pattern[str]) -> None:
        """Move over what matches, refilling where the window ends."""
        while True:
            self.advance(match.end() if (match := pattern.match(self._text, self.at)) else self.at)
            if self.at < len(self._text) or not self._refill():
                return

    def decode(self) -> tuple[Any, int]:
        """The JSON value at the position and where it ends; refills until the value is complete.

        Raises:
            ValueError: It is malformed or longer than `MAX_RECORD`.
        """
        while True:
            try:
                values, end = self._decoder.raw_decode(self._text, self.at)
                if end < len(self._text) or not self._refill():  # a number at the end may continue
                    return values, end
            except json.JSONDecodeError as error:
                if self._is_malformed(error):
                    raise
                if len(self._text) - self.at > text_lines.MAX_RECORD:
                    raise ValueError(f"an item {text_lines.too_long()}") from error
                if not self._refill():
                    raise

    def hint(self, error: Exception) -> str:
        """What may have caused an error of `decode`."""
        at = error.pos if isinstance(error, json.JSONDecodeError) else len(self._text)
        found = self._text[at : at + COMMENT_CHARACTERS].lstrip().startswith(("//", "/*"))
        return " (a comment?)" if found else ""

    def skip_to_next_object(self) -> bool:
        """Move to where the next object seems to begin; False where there is none."""
        self.advance(min(self.at + 1, len(self._text)))
        while True:
            if match := NEXT_OBJECT.search(self._text, max(0, self.at - 1)):
                self.advance(match.end())
                return True
            self.advance(max(self.at, len(self._text) - MARGIN))
            if not self._refill():
                return False

    def _is_malformed(self, error: json.JSONDecodeError) -> bool:
        """Whether no continuation of the window can make the value valid."""
        return error.pos + MARGIN < len(self._text) and not error.msg.startswith("Unterminated")

    def _refill(self) -> bool:
        """Drop what was read and double the rest, so that an object that spans many refills is
        decoded in linear time; False at the end of the file."""
        rest = self._text[self.at :]
        more = self._file.read(max(text_lines.READ_CHARACTERS, len(rest)))
        if more:
            self._text, self.at = rest + more, 0
        return bool(more)


JSON_ARRAY = FileFormat(name="json", extensions=(".jsonl", ".ndjson", ".json"), read=_read)
