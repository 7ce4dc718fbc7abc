"""Code files -> rows: documented functions, whole files, text to fill in. Pure except for reading a
file, so that worker processes can share the work."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.core.languages.authorship import reason_of_content
from tasks.core.languages.encoding import legacy_encoding
from tasks.core.languages.protocol import (
    DocumentedFunction,
    Language,
    NotParsableError,
    ParsedSource,
)
from tasks.core.languages.registry import language_of
from tasks.core.system.escape_text import printable
from tasks.ingestion.code_file import CodeFile, content_of
from tasks.ingestion.code_windows import context_windows, cut, holes
from tasks.ingestion.licenses import license_of_header
from tasks.ingestion.rows import Row, Unreadable, excerpt, text_id, text_problem


class CodeOptions(NamedTuple):
    """What is taken from code files; see `CodeSource`."""

    keep_docstring: bool
    methods: bool
    doctests: bool = False
    rows: tuple[str, ...] = ("functions",)
    window_characters: int = 3000
    path_line: bool = False
    holes: int = 2
    character_holes: float = 0.1


@dataclass
class ExtractedCode:
    """What was taken from one file.

    Attributes:
        skipped: Functions that gave no row, or the file itself, by reason; and its encoding.
        candidates: (row id, *fields of a `DoctestCandidate`).
        language: Title of the file's language; "" if nothing was read.
    """

    rows: list[Row] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    candidates: list[tuple[str | int, ...]] = field(default_factory=list)
    source_bytes: int = 0
    language: str = ""


def extract_file(file: CodeFile, options: CodeOptions) -> ExtractedCode:
    """Rows of a file, in order; a file that can't be read is one ledger entry."""
    extracted, raw = ExtractedCode(), b""
    try:
        raw = content_of(file)
        extracted.source_bytes = len(raw)
        language = language_of(file.path, raw, file.headers)
        if language is None or (reason := reason_of_content(raw)):
            reason = "files that are not code" if language is None else reason
            extracted.skipped[reason] += 1
            return extracted
        text = language.decode(raw)
        source = language.parse(text)
    except NotParsableError as error:
        shown = b"".join(raw.split(b"\n")[error.line - 1 : error.line])
        extracted.unreadable.append(_unreadable(file, error.line, str(error), shown))
        return extracted
    except OSError as error:
        problem = f"the file can't be read: {error.strerror}"
        extracted.unreadable.append(_unreadable(file, 0, problem, ""))
        return extracted
    extracted.language = language.title
    if encoding := legacy_encoding(raw):
        extracted.skipped[f"files read as {encoding}"] += 1
    rows = _FileRows(file, language, license_of_header(text), extracted)
    if "functions" in options.rows:
        found, skipped = source.documented_functions(options.keep_docstring, options.methods)
        extracted.skipped.update(skipped)
        rows.add_functions(found)
    if options.doctests:
        row_ids = {row.line: row.row_id for row in extracted.rows}
        for candidate in language.doctest_candidates(text):
            if isinstance(candidate, int):
                extracted.skipped["doctests: function needs more than the standard library"] += 1
            elif candidate.line in row_ids:
                extracted.candidates.append((row_ids[candidate.line], *candidate))
    if {"files", "fill", "context"} & set(options.rows):
        rows.add_windows(source, text, options)
    return extracted


@dataclass
class _FileRows:
    """Turns what was found in a file into rows; a text that can't be stored is a ledger entry."""

    file: CodeFile
    language: Language
    header: tuple[str, str]
    extracted: ExtractedCode

    def add_functions(self, functions: Iterable[DocumentedFunction]) -> None:
        """A row for each function."""
        for one in functions:
            self._add("function", (one.instruction, "", one.output), one.line, symbol=one.symbol)

    def add_windows(self, source: ParsedSource, text: str, options: CodeOptions) -> None:
        """The whole file in windows, holes in it, and windows after what they need."""
        if problem := text_problem("the file", text, False):
            self.extracted.unreadable.append(_unreadable(self.file, 0, problem, text))
            return
        data, most = text.encode(), options.window_characters
        path, comment = printable(self.file.path), self.language.line_comment
        head = f"{comment} {path}\n" if options.path_line else ""
        windows = list(cut(data, source.boundaries(), most))

        def add(kind: str, texts: tuple[str, str, str], position: int, packed: str = "") -> None:
            self._add(kind, texts, data.count(b"\n", 0, position) + 1, packed)

        for start, end in windows if "files" in options.rows else ():
            if shown := data[start:end].decode().strip("\n"):
                add("file", (head, "", f"{shown}\n"), start)
        each, share = options.holes, options.character_holes
        drawn = holes(source, data, windows, path, each, share, most)
        for hole in drawn if "fill" in options.rows else ():
            hole = hole._replace(prefix=head + hole.prefix)  # noqa: PLW2901  # as it is trained on
            given = f"{hole.prefix}\n\n{hole.suffix}"
            add("fill", (given, "", hole.middle), hole.position, hole.packed())
        needed = [(printable(name), shown) for name, shown in self.file.context]
        repository = printable(self.file.project).strip("/")
        parts = context_windows(source, data, needed, most)
        for part in parts if "context" in options.rows else ():
            packed = part.packed(repository=repository, comment=comment, path=path)
            add("context", (part.given(), "", part.output), part.position, packed)

    def _add(
        self,
        kind: str,
        texts: tuple[str, str, str],
        line: int,
        conversation: str = "",
        symbol: str = "",
    ) -> None:
        problem = text_problem("docstring", texts[0], kind == "function")
        if problem := problem or text_problem("code", texts[2], True):
            self.extracted.unreadable.append(_unreadable(self.file, line, problem, texts[0]))
            return
        name = self.language.name
        row = code_row(self.file, kind, texts, line, self.header, name, conversation, symbol)
        self.extracted.rows.append(row)


def code_row(
    file: CodeFile,
    kind: str,
    texts: tuple[str, str, str],
    line: int,
    header: tuple[str, str],
    language: str,
    conversation: str = "",
    symbol: str = "",
) -> Row:
    """A row of a code file.

    Args:
        file: Gives source, project, version and license.
        kind: Of the row.
        texts: Instruction, input, output.
        line: Where they are in the file.
        header: (license, evidence) of the file's own header, which goes before the license of its
            package or folder; ("", reason) for one that is not understood, ("", "") for none.
        language: Its name.
        conversation: See `row_schema.ROWS`.
        symbol: Of a function.
    """
    license_id, evidence = header if header[1] else (file.license, file.evidence)
    return Row(
        text_id(*texts, *([conversation] if conversation else [])),
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
        conversation=conversation,
        language=language,
        symbol=symbol,
    )


def _unreadable(file: CodeFile, line: int, problem: str, shown: object) -> Unreadable:
    return Unreadable(file.source, printable(file.path), line, problem, excerpt(shown))
