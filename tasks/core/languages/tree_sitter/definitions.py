"""Definitions in a tree: functions with the comments above them, and where a file may be cut.

Only nodes that can hold definitions are entered (`Grammar`), because walking a whole tree in Python
takes longer than parsing it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from tasks.core.languages.protocol import Boundary, Span
from tasks.core.languages.tree_sitter.grammar import Grammar

if TYPE_CHECKING:
    from tree_sitter import Node

NAME = re.compile(r"\w+")
MAX_DEPTH = 200  # of definitions in each other, such as those behind a chain of #elif


@dataclass
class Above:
    """Comments and attributes that precede the next item.

    Attributes:
        previous_row: Last row of the item before them; a comment on it belongs to that item.
        overload: Name of the item before, where it is a signature without a body, and the comments
            above the first signature of that name.
    """

    comments: list["Node"] = field(default_factory=list)
    attributes: list["Node"] = field(default_factory=list)
    previous_row: int = -1
    overload: tuple[str, list["Node"]] = ("", [])

    def takes(self, node: "Node", grammar: Grammar) -> bool:
        """Whether a node is a comment or an attribute, which is then kept for the next item."""
        if node.type in grammar.comments:
            self.comments.append(node)
        elif node.type in grammar.attributes:
            self.attributes.append(node)
        else:
            return False
        return True

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

    def clear(self, item: "Node", grammar: Grammar) -> None:
        """Begin anew below an item."""
        self.comments, self.attributes = trailing_comments(item, grammar), []
        last = self.comments[0].prev_sibling or item if self.comments else item
        self.previous_row = last.end_point[0] - (last.end_point[1] == 0)


@dataclass(frozen=True)
class Definition:
    """A function with a body.

    Attributes:
        outer: The whole item, such as the export of the function.
        start: Where the item begins, attributes included.
        end: Where it ends.
        comments: Those above it.
        owner: Names of the classes around it, joined by dots.
        name: Of the function.
    """

    node: "Node"
    body: "Node"
    outer: "Node"
    start: int
    end: int
    comments: list["Node"]
    owner: str
    name: str


class DefinitionFinder:
    """Finds the definitions of one tree."""

    def __init__(self, grammar: Grammar, data: bytes, root: "Node") -> None:
        self._grammar, self._data, self._root = grammar, data, root

    def definitions(self) -> Iterator[Definition]:
        """Functions with a body that are in no other function, in their order."""
        yield from self._items(self._root, "", Above(), 0)

    def _items(self, node: "Node", owner: str, above: Above, depth: int) -> Iterator[Definition]:
        """Functions among the children of a node, each child with what is above it."""
        for child in node.children:
            if not above.takes(child, self._grammar) and child.is_named:
                yield from self._in_item(child, child, "", owner, above, depth)
                above.overload = self._overload(child, above)
                above.clear(child, self._grammar)

    def _overload(self, item: "Node", above: Above) -> tuple[str, list["Node"]]:
        """The name of an item that is a signature, and the comments that document it."""
        node: Node | None = item if self._grammar.signatures else None
        while node is not None and node.type in self._grammar.wrappers:
            node = node.named_children[-1] if node.named_child_count else None
        if node is None or node.type not in self._grammar.signatures:
            return "", []
        name, (first, comments) = self._name(node), above.overload
        return name, comments if first == name and comments else above.adjacent(item)

    def _in_item(
        self, node: "Node", outer: "Node", name: str, owner: str, above: Above, depth: int
    ) -> Iterator[Definition]:
        """Functions of an item: the item itself, what it wraps, and what it contains."""
        grammar, kind = self._grammar, node.type
        if depth > MAX_DEPTH:
            return
        if kind in grammar.functions:
            if (body := body_of(node, grammar)) is not None:
                start = (above.attributes or [outer])[0].start_byte
                name, owner = self._name(node) or name, owner or self._owner(node)
                last = trailing_comments(outer, grammar)
                end = (last[0].prev_sibling or outer).end_byte if last else outer.end_byte
                comments = above.adjacent(outer)
                if not comments and name == above.overload[0]:
                    comments = above.overload[1]
                yield Definition(node, body, outer, start, end, comments, owner, name)
            return
        containers = dict(grammar.containers)
        if kind in grammar.items:
            yield from self._items(node, owner, above, depth + 1)
        elif kind in containers:
            named = node.child_by_field_name(containers[kind])
            own = self._text(*span_of(named)).split("<")[0].strip() if named else name
            owner = f"{owner}.{own}" if owner and own else owner or own
            inner = Above()
            for child in node.named_children:
                if child.type in grammar.comments:  # in Ruby those above the first method
                    inner.comments.append(child)
                else:
                    yield from self._in_item(child, child, "", owner, inner, depth + 1)
        elif kind in grammar.wrappers or (name and kind in grammar.calls):
            name = self._name(node) or name
            for child in node.named_children:
                # what is above a list of items, such as a module, is not about its first item
                own_above = Above() if child.type in grammar.items else above
                found = list(self._in_item(child, outer, name, owner, own_above, depth + 1))
                yield from found
                if found and kind in grammar.calls:  # the others are not what the name means
                    break

    def _owner(self, function: "Node") -> str:
        """The type of the receiver in (p *Purse)."""
        for name in self._grammar.owners:
            if (found := function.child_by_field_name(name)) is not None:
                words = NAME.findall(self._text(*span_of(found)))
                return words[1] if len(words) > 1 else "".join(words[:1])
        return ""

    def _name(self, node: "Node") -> str:
        """The name of a function or of its wrapper; of C's, the innermost declarator."""
        found = next(filter(None, map(node.child_by_field_name, self._grammar.names)), None)
        if found is None and node.type in self._grammar.functions:
            found = node.child_by_field_name("declarator")
            while found is not None and found.type != "operator_cast":
                if (inner := found.child_by_field_name("declarator")) is None:
                    break
                found = inner
        if found is None:
            return ""
        text = self._text(*span_of(found)).rpartition("\n")[2]
        if found.type in ("operator_cast", "parenthesized_declarator"):
            # operator bool() const, (*f(int x))
            text = text.lstrip("(*& ").partition("(")[0].strip()
        return text

    def boundaries(self) -> list[Boundary]:
        """Items of the file, then those of the definitions in it."""
        found: list[Boundary] = []
        waiting = [(self._root, 0)]
        while waiting:
            node, depth = waiting.pop()
            above = Above()
            is_list = node == self._root or node.type in self._grammar.items
            for child in node.children:
                if not above.takes(child, self._grammar) and child.is_named:
                    if is_list:
                        first = [*above.adjacent(child), *above.attributes, child][0]
                        found.append(Boundary(first.start_byte, depth))
                    if depth < MAX_DEPTH and self._is_entered(child):
                        waiting.append((child, depth + 1))
                    above.clear(child, self._grammar)
        return sorted(found)

    def _is_entered(self, node: "Node") -> bool:
        grammar, kind = self._grammar, node.type
        return kind in grammar.items or kind in grammar.wrappers or kind in dict(grammar.containers)

    def _text(self, start: int, end: int) -> str:
        return self._data[start:end].decode()


def body_of(function: "Node", grammar: Grammar) -> "Node | None":
    """The body of a function; None for a declaration."""
    found = function.child_by_field_name("body") or child_of(function, grammar.node_types.body)
    if found is not None and found.type not in grammar.blocks:
        # a block in a node of its own, as in Kotlin, where the other form is `= value`
        return child_of(found, grammar.blocks & grammar.node_types.body) or found
    return found


def child_of(node: "Node", kinds: frozenset[str]) -> "Node | None":
    """The first child of one of these types."""
    return next((c for c in node.named_children if c.type in kinds), None) if kinds else None


def trailing_comments(node: "Node", grammar: Grammar) -> list["Node"]:
    """Comments at the end of an open block at the end of a node: they are about what follows."""
    found: list[Node] = []
    last: Node | None = node if grammar.open_blocks else None
    while last is not None and not found:
        if last.type in grammar.open_blocks:
            reverse = takewhile(lambda n: n.type in grammar.comments, last.children[::-1])
            found = list(reverse)[::-1]
        last = last.children[-1] if last.child_count else None
    return found


def span_of(node: "Node") -> Span:
    """Where a node begins and ends."""
    return node.start_byte, node.end_byte
