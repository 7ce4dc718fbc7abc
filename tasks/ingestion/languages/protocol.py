"""The shape of a programming language: what ingestion needs to know about its source files."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


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
    """

    instruction: str
    output: str
    line: int


class DoctestCandidate(NamedTuple):
    """A function whose documentation has examples, with all that it needs to run by itself.

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


RUNNER = "run_the_doctests"  # function of a candidate's program; returns "" or the first failure


@dataclass(frozen=True)
class Language:
    """One programming language.

    Functions that take a text get it with "\\n" line ends and raise `NotParsableError`.

    Attributes:
        name: Lower case; part of cache keys.
        title: As it is written in prose.
        extensions: Endings of its files.
        parser_version: Of what parses; a part of the cache key, for another version may accept
            other texts.
        decode: The bytes of a file -> its text.
        check_syntax: Raises where a text does not parse.
        documented_functions: (text, keep documentation in the output, take methods) -> the
            documented functions in the order of the file, and how many others were skipped, by
            reason.
        doctest_candidates: Functions of a text that have examples; those that need more than the
            standard library as their line.
        is_test_name: Whether a file's name is that of a test.
    """

    name: str
    title: str
    extensions: tuple[str, ...]
    parser_version: str
    decode: Callable[[bytes], str]
    check_syntax: Callable[[str], object]
    documented_functions: Callable[[str, bool, bool], tuple[list[DocumentedFunction], Counter[str]]]
    doctest_candidates: Callable[[str], Iterator[DoctestCandidate | int]]
    is_test_name: Callable[[str], bool]
