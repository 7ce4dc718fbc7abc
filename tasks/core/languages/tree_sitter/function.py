"""One function of a tree, and a digest of it that renaming and reformatting do not change.

Names that the function binds itself (parameters, variables, its own name) are numbered in order of
appearance; names from outside, members and constants count as they are. Comments, types and
punctuation do not count.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from tasks.core.languages.tree_sitter.comments import first_paragraph
from tasks.core.languages.tree_sitter.definitions import child_of
from tasks.core.languages.tree_sitter.grammar import Grammar

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_NODES = 50_000
DISTINCTIVE_LEAVES = 20
BINDING_FIELDS = frozenset({"name", "left", "pattern", "declarator", "variable"})
NAMES = frozenset({"identifier", "variable_name", "word", "shorthand_property_identifier_pattern"})
TYPE_FIELDS = frozenset({"type", "return_type", "returns", "result", "type_parameters"})
PUNCTUATION = frozenset({";", ",", "(", ")", "{", "}", ":"})


@dataclass(frozen=True)
class TreeFunction:
    """A `ParsedFunction`."""

    grammar: Grammar
    node: "Node"
    body: "Node"
    name: str
    comment: str

    @property
    def docstring(self) -> str:
        """The first paragraph of the comment above it."""
        return first_paragraph(self.comment)

    @property
    def argument_count(self) -> int:
        """Its parameters without a receiver."""
        return len(self._parameters())

    @property
    def returned_values(self) -> int:
        """`return` statements of the function itself with a value."""
        found, waiting = 0, [self.body]
        while waiting:
            node = waiting.pop()
            if node.type in ("return_statement", "return_expression", "return"):
                found += bool(node.named_child_count)
            waiting.extend(n for n in node.named_children if n.type not in self.grammar.functions)
        return found

    @property
    def is_distinctive(self) -> bool:
        """More than one statement, or at least `DISTINCTIVE_LEAVES` words and signs."""
        statements = [n for n in self.body.named_children if n.type not in self.grammar.comments]
        return len(statements) > 1 or sum(1 for _ in self._leaves()) >= DISTINCTIVE_LEAVES

    def outline(self) -> Hashable:
        """The number of parameters and the kinds of the first two levels of nodes."""
        ignored = self.grammar.comments
        return (
            len(self._parameters()),
            *(
                (node.type, *(inner.type for inner in node.named_children))
                for node in self.body.named_children
                if node.type not in ignored
            ),
        )

    def shape(self) -> bytes | None:
        """The digest; None for a function of more than `MAX_NODES` nodes."""
        leaves = []
        for leaf in self._leaves():
            leaves.append(leaf)
            if len(leaves) > MAX_NODES:
                return None
        bound = {text for kind, text, binds in leaves if binds and kind in NAMES}
        bound.add(self.name.encode())
        numbers: dict[bytes, bytes] = {}
        parts = []
        for kind, text, _ in leaves:
            if kind in NAMES and text in bound:
                text = numbers.setdefault(text, b"#%d" % len(numbers))  # noqa: PLW2901  # its stand-in
            parts.append(text)
        return blake2b(b"\0".join(parts), digest_size=16).digest()

    def _parameters(self) -> list["Node"]:
        kinds = self.grammar.node_types
        if (given := child_of(self.node, kinds.parameters)) is not None:
            return [node for node in given.named_children if node.type in kinds.parameter]
        holder: Node | None = self.node
        while holder is not None:
            if (given := holder.child_by_field_name("parameters")) is not None:
                left_out = self.grammar.comments | self.grammar.receivers
                return [node for node in given.named_children if node.type not in left_out]
            holder = holder.child_by_field_name("declarator")
        return []

    def _leaves(self) -> Iterator[tuple[str, bytes, bool]]:
        """(type, text, whether it binds) of the leaves of parameters and body."""
        waiting = [(node, True) for node in reversed(self._parameters())]
        waiting.insert(0, (self.body, False))
        while waiting:
            node, binds = waiting.pop()
            if node.type in self.grammar.comments or node.type in PUNCTUATION:
                continue
            if not node.child_count:
                yield node.type, node.text or b"", binds
                continue
            inner, kinds = [], self.grammar.node_types
            for number, child in enumerate(node.children):
                name = node.field_name_for_child(number)
                if name not in TYPE_FIELDS and child.type not in kinds.type:
                    is_new = name in BINDING_FIELDS or node.type in kinds.binding
                    inner.append((child, binds or is_new))
            yield node.type, node.type.encode(), False
            waiting.extend(reversed(inner))
