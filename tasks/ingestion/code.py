"""Python files -> rows, a chunk of files at a time; pure but for reading the files, so that
processes can share it."""

import io
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.parallel import without_gc
from tasks.ingestion.functions import NotPythonError, documented_functions
from tasks.ingestion.licences import from_header
from tasks.ingestion.rows import Row, RowIds, Unreadable, excerpt

CHUNK_FILES = 16


@dataclass(frozen=True)
class CodeFile:
    """A Python file and what its rows inherit.

    Attributes:
        root: Folder that `path` is relative to.
        licence: SPDX licence unless the file's own header tells another one.
    """

    root: str
    path: str
    source: str
    project: str
    version: str
    licence: str
    evidence: str


@dataclass(frozen=True)
class Chunk:
    """Files to read and how."""

    files: tuple[CodeFile, ...]
    keep_docstring: bool
    methods: bool


@dataclass
class Harvest:
    """What a chunk gave."""

    rows: list[Row] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    source_bytes: int = 0


def chunks(files: Iterable[CodeFile], keep_docstring: bool, methods: bool) -> Iterator[Chunk]:
    """Cut files into chunks, in order."""
    waiting: list[CodeFile] = []
    for file in files:
        waiting.append(file)
        if len(waiting) == CHUNK_FILES:
            yield Chunk(tuple(waiting), keep_docstring, methods)
            waiting = []
    if waiting:
        yield Chunk(tuple(waiting), keep_docstring, methods)


def harvest(chunk: Chunk) -> Harvest:
    """Rows of the documented functions of a chunk's files, in order; a file that can't be read is
    in the ledger."""
    found = Harvest()
    with without_gc():
        for file in chunk.files:
            try:
                raw = Path(f"{file.root}/{file.path}").read_bytes()
                found.source_bytes += len(raw)
                text = decode(raw)
                functions, skipped = documented_functions(text, chunk.keep_docstring, chunk.methods)
            except NotPythonError as problem:
                line, shown = problem.line, ""
                if line:
                    shown = raw.split(b"\n")[line - 1 : line][0].decode("utf-8", "replace")
                found.unreadable.append(
                    Unreadable(file.source, file.path, line, str(problem), excerpt(shown))
                )
                continue
            except OSError as error:
                problem_text = f"the file can't be read: {error.strerror}"
                found.unreadable.append(Unreadable(file.source, file.path, 0, problem_text, ""))
                continue
            found.skipped.update(skipped)
            licence, evidence = from_header(text)
            if not licence:
                licence, evidence = file.licence, file.evidence
            ids = RowIds(file.source, file.path)
            found.rows.extend(
                Row(
                    row_id=ids.next_id(f.instruction, "", f.output),
                    instruction=f.instruction,
                    input="",
                    output=f.output,
                    kind="function",
                    source=file.source,
                    project=file.project,
                    path=file.path,
                    line=f.line,
                    version=file.version,
                    licence=licence,
                    licence_evidence=evidence,
                )
                for f in functions
            )
    return found


def decode(raw: bytes) -> str:
    """Text of a Python file by its own declaration (PEP 263), UTF-8 otherwise, with "\\n" line
    ends.

    Raises:
        NotPythonError: It holds a NUL byte, or is not in the encoding that it declares.
    """
    if b"\0" in raw:
        raise NotPythonError("holds a NUL byte", raw[: raw.index(b"\0")].count(b"\n") + 1)
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise NotPythonError(
            f"byte {raw[error.start]:#04x} is not {error.encoding}", line
        ) from error
    except (SyntaxError, LookupError) as error:
        raise NotPythonError(f"wrong encoding: {error}", 1) from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
