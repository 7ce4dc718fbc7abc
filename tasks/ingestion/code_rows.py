"""Python files -> rows, some files at a time; pure but for reading the files, so that processes can
share it."""

import io
import tokenize
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.system.parallel import without_gc
from tasks.ingestion.languages.python import Documented, NotPythonError, documented_functions
from tasks.ingestion.languages.python_doctests import Candidate, candidates
from tasks.ingestion.licences import from_header
from tasks.ingestion.rows import (
    Row,
    RowIds,
    Unreadable,
    excerpt,
    printable,
    text_problem,
)

MISSING = -1
MAX_FILE_BYTES = 8 << 20  # a syntax tree takes about a hundred times its text


@dataclass(frozen=True)
class CodeFile:
    """A Python file and what its rows inherit.

    Attributes:
        root: Folder that `path` is relative to.
        licence: SPDX licence unless the file's own header tells another one.
        content: Its bytes; its size if that is over `MAX_FILE_BYTES`; `MISSING`; or None: read it
            from `root`/`path`.
    """

    root: str
    path: str
    source: str
    project: str
    version: str
    licence: str
    evidence: str
    content: bytes | int | None = None


@dataclass(frozen=True)
class Chunk:
    """Files to read and how."""

    files: tuple[CodeFile, ...]
    keep_docstring: bool
    methods: bool
    doctests: bool = False


@dataclass
class Harvest:
    """What a chunk gave."""

    rows: list[Row] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    candidates: list[tuple[str, Candidate]] = field(default_factory=list)
    source_bytes: int = 0


def harvest(chunk: Chunk) -> Harvest:
    """Rows of the documented functions of a chunk's files, in order; a file that can't be read is
    in the ledger."""
    found = Harvest()
    with without_gc():
        for file in chunk.files:
            raw = b""
            path = printable(file.path)
            try:
                raw = content_of(file)
                found.source_bytes += len(raw)
                text = decode(raw)
                functions, skipped = documented_functions(text, chunk.keep_docstring, chunk.methods)
            except NotPythonError as problem:
                shown = b"".join(raw.split(b"\n")[problem.line - 1 : problem.line])
                found.unreadable.append(
                    Unreadable(file.source, path, problem.line, str(problem), excerpt(shown))
                )
                continue
            except OSError as error:
                problem_text = f"the file can't be read: {error.strerror}"
                found.unreadable.append(Unreadable(file.source, path, 0, problem_text, ""))
                continue
            found.skipped.update(skipped)
            first = len(found.rows)
            _add_rows(found, file, path, text, functions)
            if chunk.doctests:
                _add_candidates(found, found.rows[first:], text)
    return found


def _add_candidates(found: Harvest, rows: list[Row], text: str) -> None:
    """Note the rows of a file that can be run."""
    by_line = {row.line: row.row_id for row in rows}
    for candidate in candidates(text):
        if isinstance(candidate, int):
            found.skipped["doctests: function leans on more than the standard library"] += 1
        elif candidate.line in by_line:
            found.candidates.append((by_line[candidate.line], candidate))


def content_of(file: CodeFile) -> bytes:
    """The file's bytes.

    Raises:
        NotPythonError: It is too large to be parsed.
        OSError: It can't be read.
    """
    if isinstance(file.content, bytes):
        return file.content
    if file.content == MISSING:
        raise NotPythonError("its object is missing from the repository", 0)
    path = Path(f"{file.root}/{file.path}")
    size = path.stat().st_size if file.content is None else file.content
    if size > MAX_FILE_BYTES:
        raise NotPythonError(f"holds {size:,} bytes, at most {MAX_FILE_BYTES:,} are read", 0)
    return path.read_bytes()


def _add_rows(
    found: Harvest, file: CodeFile, path: str, text: str, functions: Iterable[Documented]
) -> None:
    """Turn a file's functions into rows; one whose text can't be stored is in the ledger."""
    licence, evidence = from_header(text)
    if not licence:
        licence, evidence = file.licence, file.evidence
    ids = RowIds(file.source, path)
    for function in functions:
        problem = text_problem("docstring", function.instruction, True)
        if problem := problem or text_problem("code", function.output, True):
            shown = excerpt(function.instruction)
            found.unreadable.append(Unreadable(file.source, path, function.line, problem, shown))
            continue
        found.rows.append(
            Row(
                row_id=ids.next_id(function.instruction, "", function.output),
                instruction=function.instruction,
                input="",
                output=function.output,
                kind="function",
                source=file.source,
                project=printable(file.project),
                path=path,
                line=function.line,
                version=file.version,
                licence=licence,
                licence_evidence=printable(evidence),
            )
        )


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
    except (SyntaxError, LookupError, UnicodeError) as error:
        raise NotPythonError(f"wrong encoding: {error}", 1) from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
