"""The row and its id, and the ledger entry for input that could not become a row.

A row's id is a hash of its texts alone. Where it was read is in other columns, so a renamed file,
folder or source changes no id, and no later stage computes anything anew. The second copy of a text
gets the id of the first one with "-1" appended, the third one "-2": ids sort so that the first copy
precedes the others, and an appended copy changes no other id.
"""

import re
from collections import Counter
from hashlib import blake2b
from typing import NamedTuple

EXCERPT_CHARACTERS = 200
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the text of objects, another one in every run


class Row(NamedTuple):
    """One row in the order of `row_schema.ROWS`."""

    row_id: str
    instruction: str
    input: str
    output: str
    kind: str
    source: str
    project: str
    path: str
    line: int
    version: str
    licence: str
    licence_evidence: str
    conversation: str = ""
    language: str = ""
    symbol: str = ""
    date: str = ""
    repeats: int = 1


class Unreadable(NamedTuple):
    """One entry in the order of `row_schema.UNREADABLE`; line 0 is the whole file."""

    source: str
    path: str
    line: int
    problem: str
    excerpt: str


def text_id(*texts: str) -> str:
    """Hash of the texts of a row, 128 bits in hex; they contain no NUL, which separates them."""
    content = "\0".join(texts).encode("utf-8", "replace")
    return blake2b(content, digest_size=16).hexdigest()


class Unfit:
    """A value that Python can't represent, such as a date in the year 40000.

    Attributes:
        problem: Why, as part of a ledger entry.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __repr__(self) -> str:
        return "<not representable>"


class CopyNumbers:
    """Numbers the copies of a text among all rows of a run, in their order.

    Holds 64 bits of each id: a collision among them only numbers a row that is no copy.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._copies: Counter[int] = Counter()

    def numbered(self, row: Row) -> Row:
        """The row with its final id; a row that is its own project stays its own project."""
        key = int(row.row_id[:16], 16)
        if key not in self._seen:
            self._seen.add(key)
            return row
        self._copies[key] += 1
        row_id = f"{row.row_id}-{self._copies[key]}"
        own = row.project == row.row_id
        return row._replace(row_id=row_id, project=row_id if own else row.project)


def excerpt(value: object) -> str:
    """The beginning of a value, as valid UTF-8 without NUL bytes, the same in every run."""
    text = value if isinstance(value, str) else ADDRESS.sub("", repr(value))
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
    return text[:EXCERPT_CHARACTERS].replace("\0", "\\0").encode("utf-8", "replace").decode()


def text_problem(name: str, value: object, is_required: bool) -> str:
    """Why a value can't be the text `name` of a row; "" if it can. None counts as empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"{name} is empty" if is_required else ""
    if isinstance(value, Unfit):
        return f"{name} {value.problem}"
    if not isinstance(value, str):
        return f"{name} is of type {type(value).__name__}, expected text"
    if "\0" in value:
        return f"{name} contains a NUL byte"
    wrong = "" if value.isascii() else _wrong_character(value)
    if not wrong:
        return ""
    # these stand for bytes of a file, which are not UTF-8
    is_byte = "\udc80" <= wrong <= "\udcff"
    problem = "is not valid UTF-8" if is_byte else f"has half of a character, \\u{ord(wrong):x}"
    return f"{name} {problem}"


def _wrong_character(text: str) -> str:
    """The first character that UTF-8 can't have; "" if there is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return text[error.start]
    return ""
