"""Code files -> rows of their documented functions; pure except for reading a file, so that worker
processes can share the work."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tasks.ingestion.languages.protocol import DocumentedFunction, NotParsableError
from tasks.ingestion.languages.registry import language_of
from tasks.ingestion.licenses import license_of_header
from tasks.ingestion.rows import Row, Unreadable, excerpt, printable, text_id, text_problem

MISSING = -1
MAX_FILE_BYTES = 8 << 20  # a syntax tree takes about a hundred times its text


@dataclass(frozen=True)
class CodeFile:
    """A source file and what its rows inherit.

    Attributes:
        root: Folder that `path` is relative to.
        license: SPDX license, unless the file's own header names another one.
        content: Its bytes; its size if that is over `MAX_FILE_BYTES`; `MISSING`; or None: read it
            from `root`/`path`.
        date: When it last changed, ISO 8601; "" unknown.
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


class CodeOptions(NamedTuple):
    """What is taken from code files."""

    keep_docstring: bool
    methods: bool
    doctests: bool = False


@dataclass
class ExtractedCode:
    """What was taken from one file.

    Attributes:
        skipped: Functions that gave no row, by reason.
        candidates: (row id, *fields of a `DoctestCandidate`).
    """

    rows: list[Row] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    candidates: list[tuple[str | int, ...]] = field(default_factory=list)
    source_bytes: int = 0


def extract_file(file: CodeFile, options: CodeOptions) -> ExtractedCode:
    """Rows of a file's documented functions, in order; a file that can't be read is one ledger
    entry."""
    extracted = ExtractedCode()
    language = language_of(file.path)
    raw = b""
    try:
        raw = content_of(file)
        extracted.source_bytes = len(raw)
        text = language.decode(raw)
        functions, extracted.skipped = language.documented_functions(
            text, options.keep_docstring, options.methods
        )
    except NotParsableError as error:
        shown = b"".join(raw.split(b"\n")[error.line - 1 : error.line])
        extracted.unreadable.append(_unreadable(file, error.line, str(error), shown))
        return extracted
    except OSError as error:
        problem = f"the file can't be read: {error.strerror}"
        extracted.unreadable.append(_unreadable(file, 0, problem, ""))
        return extracted
    _add_rows(extracted, file, text, functions)
    if options.doctests:
        row_ids = {row.line: row.row_id for row in extracted.rows}
        for candidate in language.doctest_candidates(text):
            if isinstance(candidate, int):
                extracted.skipped["doctests: function needs more than the standard library"] += 1
            elif candidate.line in row_ids:
                extracted.candidates.append((row_ids[candidate.line], *candidate))
    return extracted


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
    path = Path(f"{file.root}/{file.path}")
    size = path.stat().st_size if file.content is None else file.content
    if size > MAX_FILE_BYTES:
        raise NotParsableError(f"holds {size:,} bytes, at most {MAX_FILE_BYTES:,} are read", 0)
    return path.read_bytes()


def _add_rows(
    extracted: ExtractedCode, file: CodeFile, text: str, functions: Iterable[DocumentedFunction]
) -> None:
    """Turn a file's functions into rows; one whose text can't be stored is a ledger entry."""
    origin = license_of_header(text)
    for function in functions:
        problem = text_problem("docstring", function.instruction, True)
        if problem := problem or text_problem("code", function.output, True):
            entry = _unreadable(file, function.line, problem, function.instruction)
            extracted.unreadable.append(entry)
            continue
        texts = (function.instruction, "", function.output)
        extracted.rows.append(code_row(file, "function", texts, function.line, origin))


def code_row(
    file: CodeFile,
    kind: str,
    texts: tuple[str, str, str],
    line: int,
    header: tuple[str, str],
) -> Row:
    """A row of a code file.

    Args:
        file: Gives source, project, version and license.
        kind: Of the row.
        texts: Instruction, input, output.
        line: Where they are in the file.
        header: (license, evidence) of the file's own header, which goes before the license of its
            package or folder; ("", reason) for one that is not understood, ("", "") for none.
    """
    license_id, evidence = header if header[1] else (file.license, file.evidence)
    return Row(
        text_id(*texts),
        *texts,
        kind=kind,
        source=file.source,
        project=printable(file.project),
        path=printable(file.path),
        line=line,
        version=file.version,
        licence=license_id,
        licence_evidence=printable(evidence),
        date=file.date,
    )


def _unreadable(file: CodeFile, line: int, problem: str, shown: object) -> Unreadable:
    return Unreadable(file.source, printable(file.path), line, problem, excerpt(shown))
