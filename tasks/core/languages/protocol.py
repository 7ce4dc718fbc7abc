"""Protocol of a programming language, of a parsed source text and of its functions.

Ingestion, the filter rules and the decontamination read source code through these members only, so
another language needs no change there. Members of a tree are computed on access: most rows need
only a few of them. Positions in a text are in bytes of UTF-8.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, Protocol

from tasks.core.languages.authorship import matcher

RUNNER = "run_the_doctests"  # function of a candidate's program; returns "" or the first failure
SpanKind = Literal["expression", "statement", "block", "body"]
Span = tuple[int, int]


class NotParsableError(ValueError):
    """A file that is not valid source text; `line` is where (0: unknown)."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


class DocumentedFunction(NamedTuple):
    """One documented function.

    Attributes:
        instruction: First paragraph of the documentation, an empty line, the signature.
        output: Source of the function, without the indentation of the class that encloses it.
        line: 1-based line where its definition begins, decorators included.
        symbol: Its name, after the names of the classes that enclose it.
    """

    instruction: str
    output: str
    line: int
    symbol: str = ""


class DoctestCandidate(NamedTuple):
    """A function whose documentation has examples, with everything that it needs to run alone.

    Attributes:
        line: As in `DocumentedFunction`.
        examples: Number of examples.
        program: The function with a runner of its examples, called `RUNNER`.
        prompt: This and the following fields are the function as a problem in HumanEval's form;
            all "" where its examples can't be checked from outside.
    """

    line: int
    examples: int
    program: str
    prompt: str = ""
    entry_point: str = ""
    canonical_solution: str = ""
    test: str = ""


class Boundary(NamedTuple):
    """A place where a file may be cut.

    Attributes:
        position: Where a definition or statement begins.
        depth: Number of definitions around it; 0 is the top level.
    """

    position: int
    depth: int


class ParsedFunction(Protocol):
    """One function or method."""

    @property
    def name(self) -> str:
        """Its own name, without that of a class."""
        ...

    @property
    def docstring(self) -> str:
        """Its documentation; "" if it has none."""
        ...

    @property
    def argument_count(self) -> int:
        """Arguments that a caller gives; a receiver such as `self` does not count."""
        ...

    @property
    def returned_values(self) -> int:
        """Return statements with a value, those of nested functions excluded."""
        ...

    @property
    def is_distinctive(self) -> bool:
        """Whether its shape says what it does: it has several statements, or a long one. Anyone
        writes `return a + b`."""
        ...

    def outline(self) -> Hashable:
        """A cheap summary; functions with equal shapes have equal outlines."""
        ...

    def shape(self) -> bytes | None:
        """Digest of the tree without formatting and local names; None if the tree is too deep."""
        ...


class ParsedSource(Protocol):
    """One source text."""

    def functions(self) -> Iterator[ParsedFunction]:
        """Functions at the top level, in their order."""
        ...

    def functions_and_methods(self) -> Iterator[ParsedFunction]:
        """The same with the methods of top-level classes, in their order."""
        ...

    def documented_functions(
        self, keep_docstring: bool, methods: bool
    ) -> tuple[list[DocumentedFunction], Counter[str]]:
        """Documented functions in the order of the file, and how many others were skipped, by
        reason.

        Args:
            keep_docstring: Leave the documentation in the output.
            methods: Take methods of classes too.
        """
        ...

    def boundaries(self) -> list[Boundary]:
        """Where definitions and statements begin, each with the comments above it, in order; those
        inside functions are left out."""
        ...

    def span(self, kind: SpanKind, position: int) -> Span | None:
        """The smallest part of the text of a kind that holds a position."""
        ...


def _no_candidates(_text: str) -> Iterator[DoctestCandidate | int]:
    return iter(())


# for each import of a file (text, path) the files that it may mean, best first; see `imports.py`
Imports = Callable[[str, str], Iterator[tuple[str, ...]]]


def no_imports(_text: str, _path: str) -> Iterator[tuple[str, ...]]:
    """Of a language whose files do not name each other."""
    return iter(())


@dataclass(frozen=True)
class Language:
    """One programming language.

    Functions that take a text get it with "\\n" line ends and raise `NotParsableError`.

    Attributes:
        name: Lower case; in rows and in cache keys.
        title: As it is written in prose.
        extensions: Endings of its files.
        parser: Distributions that parse it; their versions are a part of the cache key, for another
            version may accept other texts.
        line_comment: What begins a comment that ends with its line.
        decode: The bytes of a file -> its text.
        parse: The tree of a file's text.
        parse_fragment: The tree of a text such as a method without its class.
        shebangs: Programs in the first line of files without an extension.
        test_names: Patterns of the names of test files.
        test_folders: Folders of tests.
        doctest_candidates: Functions of a text that have examples; those that need more than the
            standard library as their line.
        imports: Files of the same repository that a file may name.
        is_default: Read unless a source names other languages.
    """

    name: str
    title: str
    extensions: tuple[str, ...]
    parser: tuple[str, ...]
    line_comment: str
    decode: Callable[[bytes], str]
    parse: Callable[[str], ParsedSource]
    parse_fragment: Callable[[str], ParsedSource]
    shebangs: tuple[str, ...] = ()
    test_names: tuple[str, ...] = ()
    test_folders: frozenset[str] = frozenset({"test", "tests", "testing"})
    doctest_candidates: Callable[[str], Iterator[DoctestCandidate | int]] = _no_candidates
    imports: Imports = no_imports
    is_default: bool = True

    def is_test(self, path: str) -> bool:
        """Whether the relative path of a source file is a test or in a folder of tests."""
        folder, _, name = path.rpartition("/")
        return bool(self._is_test_name(name)) or has_test_folder(folder, self.test_folders)

    @cached_property
    def _is_test_name(self) -> Callable[[str], object]:
        return matcher(self.test_names)


@lru_cache(maxsize=1024)  # of many files each
def has_test_folder(path: str, names: frozenset[str]) -> bool:
    """Whether a folder or one above it has one of the names of test folders (shell patterns)."""
    return any(map(matcher(tuple(sorted(names))), path.split("/")))
