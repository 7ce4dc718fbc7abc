"""A source text as tree-sitter sees it.

Only nodes that can hold definitions are entered (`Grammar`), because walking a whole tree in Python
takes longer than parsing it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.core.languages.protocol import (
    Boundary,
    DocumentedFunction,
    NotParsableError,
    Span,
    SpanKind,
)
from tasks.core.languages.tree_sitter.comments import first_paragraph
from tasks.core.languages.tree_sitter.function import TreeFunction
from tasks.core.languages.tree_sitter.grammar import Grammar, parser_of

if TYPE_CHECKING:
    from tree_sitter import Node

NAME = re.compile(r"\w+")
MAX_PATH = 500  # nodes around a position; deeper ones are data rather than code
MAX_DEPTH = 200  # of definitions in each other, such as those behind a chain of #elif


@dataclass
class _Above:
    """Comments and attributes that precede the next item.

    Attributes:
        previous_row: Last row of the item before them; a comment on it belongs to that item.
    """

    comments: list["Node"] = field(default_factory=list)
    attributes: list["Node"] = field(default_factory=list)
    previous_row: int = -1

    def adjacent(self, item: "Node") -> list["Node"]:
        """The comments that end on the line above an item: several lines, or one block."""
        row = (self.attributes[0] if self.attributes else item).start_point[0]
        found: list[Node] = []
        for node in reversed(self.comments):
            # the line comments of Rust's documentation include the end of their line
            end_row = node.end_point[0] - (node.end_point[1] == 0)
            is_block = (node.text or b"").startswith(b"/*")
            if end_row + 1 < row or node.start_point[0] == self.previous_row:
                break
            if found and is_block:
                break
            found.append(node)
            row = node.start_point[0]
            if is_block:
                break
        return found[::-1]

    def clear(self, item: "Node") -> None:
        """Begin anew below an item."""
        self.comments, self.attributes = [], []
        self.previous_row = item.end_point[0] - (item.end_point[1] == 0)


@dataclass(frozen=True)
class _Definition:
    """A function with a body.

    Attributes:
        outer: The whole item, such as the export of the function.
        start: Where the item begins, attributes included.
        comments: Those above it.
        owner: Names of the classes around it, joined by dots.
        name: Of the function.
    """

    node: "Node"
    body: "Node"
    outer: "Node"
    start: int
    comments: list["Node"]
    owner: str
    name: str


class TreeSource:
    """A `ParsedSource`."""

    def __init__(self, grammar: Grammar, data: bytes, root: "Node") -> None:
        self._grammar, self._data, self._root = grammar, data, root

    def functions(self) -> Iterator[TreeFunction]:
        """Functions that no class encloses."""
        yield from (self._function(d) for d in self._definitions() if not d.owner)

    def functions_and_methods(self) -> Iterator[TreeFunction]:
        """All functions that are in no other function."""
        yield from map(self._function, self._definitions())

    def _function(self, found: _Definition) -> TreeFunction:
        comment = self._comment(found)
        return TreeFunction(self._grammar, found.node, found.body, found.name, comment)

    def documented_functions(
        self, keep_docstring: bool, methods: bool
    ) -> tuple[list[DocumentedFunction], Counter[str]]:
        """See `ParsedSource`."""
        found, skipped = [], Counter[str]()
        for definition in self._definitions():
            if definition.owner and not methods:
                continue
            comment = self._comment(definition)
            paragraph = first_paragraph(comment)
            if not comment:
                skipped["functions without documentation"] += 1
            elif not paragraph:
                skipped["functions with empty documentation"] += 1
            elif not definition.body.named_child_count:
                skipped["functions with an empty body"] += 1
            elif definition.node.has_error:
                skipped["functions that the grammar can't parse"] += 1
            else:
                found.append(self._cut(definition, paragraph, keep_docstring))
        return found, skipped

    def _comment(self, definition: _Definition) -> str:
        """The documentation with its marks; "" if the comments above are none."""
        if not definition.comments:
            return ""
        text = self._text(definition.comments[0].start_byte, definition.comments[-1].end_byte)
        return text.rstrip() if text.startswith(self._grammar.documentation) else ""

    def _cut(
        self, definition: _Definition, paragraph: str, keep_docstring: bool
    ) -> DocumentedFunction:
        start, line = definition.start, self._data.count(b"\n", 0, definition.start) + 1
        line_start = self._data.rfind(b"\n", 0, start) + 1
        before = self._text(line_start, start)
        indent = before if not before.strip() else ""
        signature = _dedent(self._text(start, definition.body.start_byte), indent)
        first = definition.comments[0].start_byte if keep_docstring else start
        output = _dedent(self._text(first, definition.outer.end_byte), indent)
        owner, name = definition.owner, definition.name
        head = f"{self._grammar.line_comment} a method of {owner}\n" if owner else ""
        symbol = f"{owner}.{name}" if owner else name
        instruction = f"{paragraph}\n\n{head}{signature.rstrip()}"
        return DocumentedFunction(instruction, output.rstrip(), line, symbol)

    def boundaries(self) -> list[Boundary]:
        """See `ParsedSource`: items of the file, then those of the definitions in it."""
        found: list[Boundary] = []
        waiting = [(self._root, 0)]
        while waiting:
            node, depth = waiting.pop()
            above = _Above()
            is_list = node == self._root or node.type in self._grammar.items
            for child in node.children:
                if child.type in self._grammar.comments:
                    above.comments.append(child)
                elif child.type in self._grammar.attributes:
                    above.attributes.append(child)
                elif child.is_named:
                    if is_list:
                        first = [*above.adjacent(child), *above.attributes, child][0]
                        found.append(Boundary(first.start_byte, depth))
                    if depth < MAX_DEPTH and self._is_entered(child):
                        waiting.append((child, depth + 1))
                    above.clear(child)
        return sorted(found)

    def _is_entered(self, node: "Node") -> bool:
        grammar, kind = self._grammar, node.type
        return kind in grammar.items or kind in grammar.wrappers or kind in dict(grammar.containers)

    def span(self, kind: SpanKind, position: int) -> Span | None:
        """See `ParsedSource`."""
        path = self._path(position)
        for node, parent in zip(path[:0:-1], path[-2::-1], strict=True):
            if self._is(kind, node, parent):
                return self._inside(node) if kind in ("block", "body") else _span(node)
        return None

    def _path(self, position: int) -> list["Node"]:
        """The nodes around a position, the root first. Asking each for its parent would walk down
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
            return parent.type in self._grammar.functions and node == _body(parent)
        return node.type.endswith(("expression", "call", "arguments", "argument_list", "string"))

    def _inside(self, node: "Node") -> Span:
        """A block without its braces."""
        start, end = _span(node)
        if self._data[start : start + 1] == b"{" and self._data[end - 1 : end] == b"}":
            return start + 1, end - 1
        return start, end

    def _text(self, start: int, end: int) -> str:
        return self._data[start:end].decode()

    def _definitions(self) -> Iterator[_Definition]:
        yield from self._items(self._root, "", _Above(), 0)

    def _items(self, node: "Node", owner: str, above: _Above, depth: int) -> Iterator[_Definition]:
        """Functions among the children of a node, each child with what is above it."""
        for child in node.children:
            if child.type in self._grammar.comments:
                above.comments.append(child)
            elif child.type in self._grammar.attributes:
                above.attributes.append(child)
            elif child.is_named:
                yield from self._in_item(child, child, "", owner, above, depth)
                above.clear(child)

    def _in_item(
        self, node: "Node", outer: "Node", name: str, owner: str, above: _Above, depth: int
    ) -> Iterator[_Definition]:
        """Functions of an item: the item itself, what it wraps, and what it contains."""
        grammar, kind = self._grammar, node.type
        if depth > MAX_DEPTH:
            return
        if kind in grammar.functions:
            if (body := _body(node)) is not None:
                start = (above.attributes or [outer])[0].start_byte
                name, owner = self._name(node) or name, owner or self._owner(node)
                yield _Definition(node, body, outer, start, above.adjacent(outer), owner, name)
            return
        containers = dict(grammar.containers)
        if kind in grammar.items:
            yield from self._items(node, owner, above, depth + 1)
        elif kind in containers:
            named = node.child_by_field_name(containers[kind])
            own = self._text(*_span(named)).split("<")[0].strip() if named else ""
            owner = f"{owner}.{own}" if owner and own else owner or own
            inner = _Above()
            for child in node.named_children:
                if child.type in grammar.comments:  # in Ruby those above the first method
                    inner.comments.append(child)
                else:
                    yield from self._in_item(child, child, "", owner, inner, depth + 1)
        elif kind in grammar.wrappers:
            name = self._name(node) or name
            for child in node.named_children:
                yield from self._in_item(child, outer, name, owner, above, depth + 1)

    def _owner(self, function: "Node") -> str:
        """The type of the receiver in (p *Purse)."""
        for name in self._grammar.owners:
            if (found := function.child_by_field_name(name)) is not None:
                words = NAME.findall(self._text(*_span(found)))
                return words[1] if len(words) > 1 else "".join(words[:1])
        return ""

    def _name(self, node: "Node") -> str:
        """The name of a function or of its wrapper; of C's, the innermost declarator."""
        found = next(filter(None, map(node.child_by_field_name, self._grammar.names)), None)
        if found is None and node.type in self._grammar.functions:
            found = node.child_by_field_name("declarator")
            while found is not None and (inner := found.child_by_field_name("declarator")):
                found = inner
        return self._text(*_span(found)).rpartition("\n")[2] if found is not None else ""


def parse_tree(grammar: Grammar, title: str, text: str, max_error_share: float) -> TreeSource:
    """The tree of a text.

    Raises:
        NotParsableError: More than `max_error_share` of it is not valid.
    """
    data = text.encode()
    root = parser_of(grammar.load).parse(data).root_node
    if root.has_error:
        line, size = _errors(root)
        if size > max_error_share * len(data):
            raise NotParsableError(f"not valid {title}", line)
    return TreeSource(grammar, data, root)


def _errors(root: "Node") -> tuple[int, int]:
    """Line of the first error, and the bytes of all; something that is missing counts as one."""
    first, size = 0, 0
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            first = first or node.start_point[0] + 1
            size += max(1, node.end_byte - node.start_byte)
        else:
            waiting.extend(child for child in reversed(node.children) if child.has_error)
    return first, size


def _body(function: "Node") -> "Node | None":
    return function.child_by_field_name("body")


def _span(node: "Node") -> Span:
    return node.start_byte, node.end_byte


def _dedent(text: str, indent: str) -> str:
    """Remove `indent` from every line but the first, which begins after it."""
    return text.replace(f"\n{indent}", "\n") if indent else text
