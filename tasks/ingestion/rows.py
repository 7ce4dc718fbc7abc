"""The row and its id, and the ledger entry for input that could not become a row.

A row's id is a hash of its texts, its source and its file, not of its line: a row inserted at the
top of a file changes no other id. Equal rows of one file are numbered.
"""

import re
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


class Unreadable(NamedTuple):
    """One entry in the order of `row_schema.UNREADABLE`; line 0 is the whole file."""

    source: str
    path: str
    line: int
    problem: str
    excerpt: str


class Unfit:
    """A value that Python can't represent, such as a date in the year 40000.

    Attributes:
        problem: Why, as part of a ledger entry.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __repr__(self) -> str:
        return "<not representable>"


class RowIds:
    """Ids for the rows of one file."""

    def __init__(self, source: str, path: str) -> None:
        self._origin = f"{source}\0{path}"
        self._seen: dict[bytes, int] = {}

    def next_id(self, *texts: str) -> str:
        """Id of the next row, hex of 128 bits.

        Args:
            texts: Instruction, input and output, and the conversation of a row that has one. They
                contain no NUL, which separates them here.
        """
        content = "\0".join((self._origin, *texts)).encode("utf-8", "replace")
        digest = blake2b(content, digest_size=16).digest()
        count = self._seen.get(digest, 0)
        self._seen[digest] = count + 1
        if count:
            digest = blake2b(digest + count.to_bytes(8, "big"), digest_size=16).digest()
        return digest.hex()


def excerpt(value: object) -> str:
    """The beginning of a value, as valid UTF-8 without NUL bytes, the same in every run."""
    text = value if isinstance(value, str) else ADDRESS.sub("", repr(value))
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
    return text[:EXCERPT_CHARACTERS].replace("\0", "\\0").encode("utf-8", "replace").decode()


def printable(path: str) -> str:
    """A path with bytes that are not UTF-8 shown as \\xNN: file names may hold any bytes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def text_problem(name: str, value: object, is_required: bool) -> str:
    """Why a value can't be the text `name` of a row; "" if it can. None counts as empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"{name} is empty" if is_required else ""
    if isinstance(value, Unfit):
        return f"{name} {value.problem}"
    if not isinstance(value, str):
        return f"{name} is of type {type(value).__name__}, wanted text"
    if "\0" in value:
        return f"{name} holds a NUL byte"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{name} is not valid UTF-8"
    return ""
