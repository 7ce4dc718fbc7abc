"""A source file, and how it is read."""

import os
from typing import NamedTuple

from tasks.core.languages.protocol import NotParsableError

MISSING = -1
MAX_FILE_BYTES = 8 << 20  # a syntax tree takes about a hundred times its text


class CodeFile(NamedTuple):
    """A source file and what its rows inherit.

    Attributes:
        root: Folder that `path` is relative to.
        license: SPDX license, unless the file's own header names another one.
        content: Its bytes; its size if that is over `MAX_FILE_BYTES`; `MISSING`; or None: read it
            from `root`/`path`.
        date: When it last changed, ISO 8601; "" unknown.
        context: (path, text) of files that it needs, the most needed first.
        headers: Language of headers in its source; see `headers_of`.
    """

    root: str
    path: str
    source: str
    project: str
    version: str
    license: str
    evidence: str
    content: bytes | int | None = None
    date: str = ""
    context: tuple[tuple[str, str], ...] = ()
    headers: str = "c"


def content_of(file: CodeFile) -> bytes:
    """The file's bytes.

    Raises:
        NotParsableError: It is too large to be parsed, or missing from its repository.
        OSError: It can't be read.
    """
    if isinstance(file.content, bytes):
        return file.content
    if file.content == MISSING:
        raise NotParsableError("its object is missing from the repository", 0)
    size = file.content
    if size is None:
        # a second run mostly opens files; `open` makes twice as many calls of the system
        descriptor = os.open(f"{file.root}/{file.path}", os.O_RDONLY)
        try:
            if (size := os.fstat(descriptor).st_size) <= MAX_FILE_BYTES:
                content = os.read(descriptor, size + 1)
                while len(content) != size and (more := os.read(descriptor, MAX_FILE_BYTES)):
                    content += more  # it grows, or its file system does not know its size
                return content
        finally:
            os.close(descriptor)
    raise NotParsableError(f"has {size:,} bytes, at most {MAX_FILE_BYTES:,} are read", 0)
