"""A source text as tree-sitter parses it."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tasks.core.languages.protocol import (
    Boundary,
    DocumentedFunction,
    NotParsableError,
    Span,
    SpanKind,
)
from tasks.core.languages.tree_sitter.comments import first_paragraph
from tasks.core.languages.tree_sitter.definitions import (
    Definition,
    DefinitionFinder,
    body_of,
    span_of,
)
from tasks.core.languages.tree_sitter.function import TreeFunction
from tasks.core.languages.tree_sitter.grammar import Grammar, parser_of

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_PATH = 500  # nodes around a position; deeper ones are data rather than code


class TreeSource:
    """A `ParsedSource`."""

    def __init__(self, grammar: Grammar, data: bytes, root: "Node", before: int = 0) -> None:
        self._grammar, self._data, self._root, self._before = grammar, data, root, before
        self._finder = DefinitionFinder(grammar, data, root)

    def functions(self) -> Iterator[TreeFunction]:
        """Functions that no class encloses."""
        yield from (self._function(d) for d in self._finder.definitions() if not d.owner)

    def functions_and_methods(self) -> Iterator[TreeFunction]:
        """All functions that are in no other function."""
        yield from map(self._function, self._finder.definitions())

    def _function(self, found: Definition) -> TreeFunction:
        comment = self._comment(found)
        return TreeFunction(self._grammar, found.node, found.body, found.name, comment)

    def documented_functions(
        self, keep_docstring: bool, methods: bool
    ) -> tuple[list[DocumentedFunction], Counter[str]]:
        """See `ParsedSource`."""
        found, skipped = [], Counter[str]()
        for definition in self._finder.definitions():
            if definition.owner and not methods:
                continue
            comment = self._comment(definition)
            paragraph = first_paragraph(comment) if comment else ""
            if not comment:
                skipped["functions without documentation"] += 1
            elif not paragraph:
                skipped["functions with empty documentation"] += 1
            elif self._is_empty(definition.body):
                skipped["functions with an empty body"] += 1
            elif definition.node.has_error:
                skipped["functions that the grammar can't parse"] += 1
            else:
                found.append(self._cut(definition, paragraph, keep_docstring))
        return found, skipped

    def _is_empty(self, body: "Node") -> bool:
        """Whether a body has no statement; one that is a single name or number is not empty."""
        return body.type in self._grammar.blocks and not body.named_child_count

    def _comment(self, definition: Definition) -> str:
        """The documentation with its marks; "" if the comments above are none."""
        if not definition.comments:
            return ""
        text = self._text(definition.comments[0].start_byte, definition.comments[-1].end_byte)
        return text.rstrip() if text.startswith(self._grammar.documentation) else ""

    def _cut(
        self, definition: Definition, paragraph: str, keep_docstring: bool
    ) -> DocumentedFunction:
        start, line = definition.start, self._data.count(b"\n", 0, definition.start) + 1
        line_start = self._data.rfind(b"\n", 0, start) + 1
        before = self._text(line_start, start)
        indent = before if not before.strip() else ""
        before_body = definition.body.prev_sibling
        signature_end = definition.body.start_byte
        while before_body is not None and before_body.type in self._grammar.comments:
            signature_end, before_body = before_body.start_byte, before_body.prev_sibling
        signature = _dedent(self._text(start, signature_end), indent)
        first = definition.comments[0].start_byte if keep_docstring else start
        output = _dedent(self._text(first, definition.end), indent)
        owner, name = definition.owner, definition.name
        head = f"{self._grammar.line_comment} a method of {owner}\n" if owner else ""
        symbol = f"{owner}.{name}" if owner else name
        instruction = f"{paragraph}\n\n{head}{signature.rstrip()}"
        return DocumentedFunction(instruction, output.rstrip(), line, symbol)

    def boundaries(self) -> list[Boundary]:
        """See `DefinitionFinder.boundaries`."""
        return self._finder.boundaries()

    def span(self, kind: SpanKind, position: int) -> Span | None:
        """See `ParsedSource`."""
        path = self._path(position + self._before)
        for node, parent in zip(path[:0:-1], path[-2::-1], strict=True):
            if self._is(kind, node, parent):
                found = self._inside(node) if kind in ("block", "body") else span_of(node)
                start, end = (place - self._before for place in found)
                return (start, end) if start >= 0 else None
        return None

    def _path(self, position: int) -> list["Node"]:
        """The nodes around a position, the root first. Reading the parent of each would walk down
        from the root again."""
        cursor, path = self._root.walk(), [self._root]
        while len(path) < MAX_PATH and cursor.goto_first_child_for_byte(position) is not None:
            node = cursor.node
            if node is None or node.start_byte > position:
                break
            if node.is_named:
                path.append(node)
        return path

    def _is(self, kind: SpanKind, node: "Node", parent: "Node") -> bool:
        blocks = self._grammar.blocks
        if kind == "statement":
            return parent.type in blocks and node.type not in self._grammar.comments
        if kind == "block":
            return node.type in blocks
        if kind == "body":
            function = parent
            if parent.type in self._grammar.node_types.body and parent.parent is not None:
                function = parent.parent
            is_function = function.type in self._grammar.functions
            return is_function and node == body_of(function, self._grammar)
        return node.type.endswith(("expression", "call", "arguments", "argument_list", "string"))

    def _inside(self, node: "Node") -> Span:
        """A block without its braces."""
        start, end = span_of(node)
        if self._data[start : start + 1] == b"{" and self._data[end - 1 : end] == b"}":
            return start + 1, end - 1
        return start, end

    def _text(self, start: int, end: int) -> str:
        return self._data[start:end].decode()


def parse_tree(
    grammar: Grammar, title: str, text: str, max_error_share: float, before: int = 0
) -> TreeSource:
    """The tree of a text.

    Args:
        grammar: Of its language.
        title: Of its language.
        text: The text.
        max_error_share: See `Grammar`.
        before: Bytes of the text that complete a fragment; spans are those of the fragment.

    Raises:
        NotParsableError: More than `max_error_share` of it is not valid.
    """
    data = text.encode()
    root = parser_of(grammar.load).parse(data).root_node
    if root.has_error:
        line, is_more = _errors(root, max_error_share * len(data))
        if is_more:
            raise NotParsableError(f"not valid {title}", line)
    return TreeSource(grammar, data, root, before)


def _errors(root: "Node", most: float) -> tuple[int, bool]:
    """Line of the first error, and whether all have more than `most` bytes; something that is
    missing counts as one byte."""
    first, size = 0, 0
    waiting = [root]
    while waiting and size <= most:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            first = first or node.start_point[0] + 1
            size += max(1, node.end_byte - node.start_byte)
        else:
            waiting.extend(child for child in reversed(node.children) if child.has_error)
    return first, size > most


def _dedent(text: str, indent: str) -> str:
    """Remove `indent` from every line but the first, which begins after it."""
    return text.replace(f"\n{indent}", "\n") if indent else text
