"""The layout of a JSON file, whatever its name: one object per line, or an array of objects, which
may be the single list of an enclosing object: {"version": 1, "data": [...]}."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.ingestion.formats.files.compression import open_bytes, open_text, plain_name
from tasks.ingestion.formats.files.protocol import is_message
from tasks.ingestion.formats.files.text_lines import numbered_lines

LINES_NAMES = (".jsonl", ".ndjson")
HEAD_CHARACTERS = 1 << 20  # the list of an enclosing object begins within them
LIST_NAMES = frozenset(
    {
        "data", "dataset", "documents", "entries", "examples", "instances", "items", "records",
        "results", "rows", "samples", "train",
    }
)  # fmt: skip
# lists of objects that are part of one record
PARTS = frozenset(
    {
        *("answers", "choices", "functions", "history", "options", "segments", "tool_calls"),
        *("tools", "completions", "responses", "candidates"),
    }
)
ONE_QUESTION = frozenset({"instruction", "definition"})  # that all instances of an object share
DESCRIPTIONS = frozenset(
    {"columns", "features", "fields", "schema"}
)  # lists before that of the rows
# both match the empty text, so they match everywhere
BLANK = re.compile(r"\s*")
# between objects, there may be comments, which are no part of JSON
BLANK_OR_COMMA = re.compile(r"(?:[\s,]|//[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*")
ARRAY_OF_OBJECTS = re.compile(r"\s*\[\s*(?:\[\s*)?\{")  # or of lists of them
LIST_OF_OBJECTS = re.compile(r"\[\s*(?=\{)")
DECODER = json.JSONDecoder()


def is_json_lines(path: Path) -> bool:
    """Whether a file has one object per line: its first line is a whole object, and not one that
    encloses all rows; under the names .jsonl and .ndjson, also anything else that is no array.

    Raises:
        OSError: The file can't be read.
    """
    first, is_only = _first_line(path)
    if isinstance(first, dict):
        return not (is_only and enclosed_list(path) is not None)
    if not plain_name(path.name).endswith(LINES_NAMES):
        return False
    with open_text(path) as file:
        head = file.read(HEAD_CHARACTERS)
    if ARRAY_OF_OBJECTS.match(head):
        return isinstance(first, list) and not is_only
    if first is None and _is_followed_by_an_object(head):
        return False
    is_open = bool(re.match(r"\s*\{\s*\n", head))
    return not is_open and enclosed_list(path) is None


def _is_followed_by_an_object(head: str) -> bool:
    """Whether a file begins with two objects without a line break between them."""
    try:
        first, end = DECODER.raw_decode(head.lstrip())
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and head.lstrip()[end:].lstrip(" \t")[:1] == "{"


def _first_line(path: Path) -> tuple[Any, bool]:
    """The value of the first line that is not blank, None if it is no JSON; and whether no other
    one follows. Lines that are too long to be records do not count."""
    first, seen = None, False
    with open_bytes(path) as file:
        for number, line in numbered_lines(file, (b"\n",)):
            text = line.removeprefix(b"\xef\xbb\xbf") if line and number == 1 else line
            if text is not None and (not text or text.isspace()):
                continue
            if seen:
                return first, False
            if text is None:
                continue
            seen = True
            try:
                first = json.loads(text)
            except (ValueError, RecursionError):
                return None, False
    return first, True


def enclosed_list(path: Path) -> tuple[int, int] | None:
    """Where the first item of the single list of objects of an enclosing object begins: character
    and line; None if the file is not such an object."""
    with open_text(path) as file:
        head = file.read(HEAD_CHARACTERS)
    at = BLANK.match(head).end()  # type: ignore[union-attr]  # it matches everywhere
    if head[at : at + 1] != "{":
        return None
    place = _place_of_list(head, at + 1)
    return place if place is None else (place, head.count("\n", 0, place) + 1)


def _place_of_list(head: str, at: int) -> int | None:
    seen: set[str] = set()
    try:
        while True:
            at = BLANK_OR_COMMA.match(head, at).end()  # type: ignore[union-attr]
            name, at = DECODER.raw_decode(head, at)
            at = BLANK.match(head, at).end()  # type: ignore[union-attr]
            if not isinstance(name, str) or head[at : at + 1] != ":":
                return None
            at = BLANK.match(head, at + 1).end()  # type: ignore[union-attr]
            if name.lower() == "instances" and seen & ONE_QUESTION:
                return None
            seen.add(name.lower())
            if match := LIST_OF_OBJECTS.match(head, at):
                if _is_list_of_rows(name, head, match.end()):
                    return match.end()
                if name.lower() not in DESCRIPTIONS:
                    return None
            inside = name.lower() in LIST_NAMES and head[at : at + 1] == "{"
            if inside and (place := _place_of_list(head, at + 1)):
                return place
            _, at = DECODER.raw_decode(head, at)
    except (ValueError, RecursionError):
        return None


def _is_list_of_rows(name: str, head: str, at: int) -> bool:
    """Whether a list of objects in an object has the rows: by its name, or because the object,
    which is the whole file, has nothing else but single values."""
    if name.lower() in PARTS:
        return False
    try:
        first, _ = DECODER.raw_decode(head, at)
    except (ValueError, RecursionError):
        first = {}  # longer than the head
    if is_message(first):
        return False
    return name.lower() in LIST_NAMES or _is_only_list(head)


def _is_only_list(head: str) -> bool:
    try:
        whole = json.loads(head)
    except (ValueError, RecursionError):
        return False
    containers = [v for v in whole.values() if isinstance(v, list | Mapping) and v]
    return len(containers) == 1 and len(containers[0]) > 1
