"""Spans of four sizes in a text of code, drawn by hash; pure.

A rest of line begins at a word. Statements, blocks and function bodies come from the syntax tree. A
span is used only if its end is found in the text after it (`generation.scope_end`), so that a model
that writes exactly the span is graded as right.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.core.languages.protocol import NotParsableError, ParsedSource, SpanKind
from tasks.core.languages.registry import BY_NAME
from tasks.core.rows.hash_rank import RANKS, hash_rank
from tasks.evaluation.completion.documents import CodeText
from tasks.evaluation.generation.scope_end import BLOCK, BODY, LINE, SIZES, STATEMENT, end_of

KINDS: dict[str, SpanKind] = {STATEMENT: "statement", BLOCK: "block", BODY: "body"}
# least and most bytes; "pass" would be right by chance, and what is longer is never right
BYTES = {LINE: (8, 160), STATEMENT: (12, 300), BLOCK: (20, 1000), BODY: (20, 1000)}
MIN_CONTEXT = 40  # characters before a span: less says nothing about it
UNCLEAR_END = "end at a place that their text alone does not determine"
_TRIES = 4  # positions for each span that is wanted: many are in no span of a size
_WORD = re.compile(r"(?<!\w)\S")
_COMMENTS = ("/*", "*")
_STRING = re.compile(r"\s*[rRuU]?[\"']")  # a statement that begins so is a docstring


@dataclass(frozen=True)
class CodeSpan:
    """A part of a text that a model has to write.

    Attributes:
        source: The text.
        size: One of `SIZES`.
        start: Where it begins, in characters.
        end: Where it ends.
    """

    source: CodeText
    size: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """Unique among the spans of an evaluation."""
        return f"{self.source.name}@{self.start} {self.size}"

    @property
    def reference(self) -> str:
        """What is to be written."""
        return self.source.text[self.start : self.end]

    def lines(self) -> list[str]:
        """The whole lines that it is in, without blank ones and indentation."""
        text = self.source.text
        first = text.rfind("\n", 0, self.start) + 1
        last = text.find("\n", self.end)
        found = (line.strip() for line in text[first : last if last >= 0 else None].splitlines())
        return [line for line in found if line]


def draw(
    source: CodeText, per_size: int, max_bytes: int, seed: int, left_out: Counter[str]
) -> dict[str, list[CodeSpan]]:
    """Up to `per_size` spans of each size, in the order of their draws.

    Args:
        source: The text.
        per_size: Spans of each size.
        max_bytes: Of a span.
        seed: Another seed, other spans.
        left_out: Counts spans that were drawn and not used, by reason.
    """
    tree, data = _tree(source), source.text.encode()
    found: dict[str, list[CodeSpan]] = {}
    for size in SIZES:
        places: dict[tuple[int, int], None] = {}
        for number in range(_TRIES * per_size):
            if len(places) == per_size:
                break
            rank = hash_rank(seed, "span", source.name, size, number)
            share = int.from_bytes(rank, "big") / RANKS
            place = _line(source, tree, share) if size == LINE else _node(tree, data, size, share)
            if place and (used := _used(source, size, *place, max_bytes, left_out)):
                places[used] = None
        found[size] = [CodeSpan(source, size, *place) for place in places]
    return found


def _tree(source: CodeText) -> ParsedSource | None:
    language = BY_NAME[source.language]
    for parse in (language.parse, language.parse_fragment):
        try:
            return parse(source.text)
        except NotParsableError:
            continue
    return None


def _node(
    tree: ParsedSource | None, data: bytes, size: str, share: float
) -> tuple[int, int] | None:
    """The node of a size around a position; without a docstring that a body begins with."""
    position = int(share * len(data))
    span = tree.span(KINDS[size], position) if tree else None
    if tree is None or span is None:
        return None
    start, end = span
    if size == BLOCK and tree.span("body", position) == span:
        return None
    text = data[start:end].decode()
    if size == BODY and _STRING.match(text):
        first = start + len(text[: len(text) - len(text.lstrip())].encode())
        docstring = tree.span("statement", first)
        start = docstring[1] if docstring and docstring[1] < end else end
    before = len(data[:start].decode())
    return before, before + len(data[start:end].decode())


def _line(source: CodeText, tree: ParsedSource | None, share: float) -> tuple[int, int] | None:
    """From a word to the end of its line; None for comments and docstrings."""
    text = source.text
    position = int(share * len(text))
    start, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
    line = text[start : end if end >= 0 else None]
    if line.lstrip().startswith((BY_NAME[source.language].line_comment, *_COMMENTS)):
        return None
    code = start + len(line) - len(line.lstrip())
    around = tree.span("statement", len(text[:code].encode())) if tree else None
    if around and _STRING.match(text.encode()[slice(*around)].decode()):
        return None
    least = BYTES[LINE][0]
    words = [m.start() for m in _WORD.finditer(line.rstrip()) if line[: m.start()].strip()]
    words = [at for at in words if len(line[at:].strip()) >= least]
    later = [at for at in words if start + at >= position]
    at = later[0] if later else words[-1] if words else None
    return None if at is None else (start + at, start + len(line.rstrip()))


def _used(
    source: CodeText, size: str, start: int, end: int, max_bytes: int, left_out: Counter[str]
) -> tuple[int, int] | None:
    """The span without white space around it, if it can be used."""
    text = source.text
    span = text[start:end].strip()
    start += len(text[start:end]) - len(text[start:end].lstrip())
    least, most = BYTES[size]
    if not least <= len(span.encode()) <= min(most, max_bytes):
        return None
    if len((source.head + text[:start]).strip()) < MIN_CONTEXT or not text[:start].strip():
        return None
    ends = {cut(size, given, rest) for given, rest in _both_forms(text, start)}
    whole = ends.pop()
    # a comment after a statement belongs to it, as its end can't be told before the line's
    if ends or not whole.startswith(span) or "\n" in whole[len(span) :]:
        left_out[UNCLEAR_END] += 1
        return None
    return start, start + len(whole)


def _both_forms(text: str, start: int) -> Iterator[tuple[str, str]]:
    """What is before and after the begin of a span, as it is posed with and without a suffix."""
    yield text[:start], text[start:]
    given = text[:start].rstrip()
    yield given, text[len(given) :]


def cut(size: str, given: str, text: str) -> str:
    """The part of a completion that belongs to the scope it began in, without white space around
    it.

    Args:
        size: One of `SIZES`.
        given: What was given before it.
        text: The completion.
    """
    return text[: end_of(size, given.rpartition("\n")[2], text)].strip()
