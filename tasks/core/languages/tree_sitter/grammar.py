"""Description of a language that tree-sitter parses, and its parser.

Names are node types and fields of the language's grammar.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser


@dataclass(frozen=True)
class NodeTypes:
    """Types of nodes that other grammars name by a field: the parts of a function."""

    body: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()  # their list
    parameter: frozenset[str] = frozenset()  # in the list; the others are default values
    binding: frozenset[str] = frozenset()  # the identifiers in it are new names
    type: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Grammar:
    """How the functions of a language look in its tree.

    Attributes:
        package: Distribution with the grammar.
        load: Imports it and returns the grammar; a plan needs the description only.
        functions: Functions and methods.
        signatures: Those without a body that precede one of the same name, as overloads.
        items: Nodes whose children are definitions or statements, each with the comments above it.
        wrappers: Nodes between an item and its function, such as `export`.
        calls: Calls and their arguments, which may stand between a name and its function: const
            a = memo(() => 1).
        open_blocks: Blocks without an end of their own, which take the comments below them in.
        containers: Nodes whose name qualifies the names of the functions in them: type -> field.
        blocks: Nodes with the statements of a function, and those inside it.
        documentation: How comments begin that document the function below them.
        comments: Comments.
        attributes: Nodes that may stand between a comment and its function.
        names: Fields of a function, or of a wrapper around it, that hold its name.
        owners: Fields of a function that hold what it is a method of.
        receivers: Parameters that a caller does not give.
        line_comment: What begins a comment that ends with its line.
        fragments: How a text is completed that does not parse by itself, in the order of trial.
        max_error_share: Share of the bytes that may be in nodes that the grammar does not know. Not
            0 where a preprocessor stands between the text and the language.
        node_types: Of a grammar that does not name the parts of a function.
    """

    package: str
    load: Callable[[], object]
    functions: frozenset[str]
    items: frozenset[str]
    wrappers: frozenset[str]
    blocks: frozenset[str]
    documentation: tuple[str, ...]
    signatures: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    open_blocks: frozenset[str] = frozenset()
    containers: tuple[tuple[str, str], ...] = ()
    comments: frozenset[str] = frozenset({"comment"})
    attributes: frozenset[str] = frozenset()
    names: tuple[str, ...] = ("name", "left", "key")
    owners: tuple[str, ...] = ()
    receivers: frozenset[str] = frozenset()
    line_comment: str = "//"
    fragments: tuple[str, ...] = ("{}",)
    max_error_share: float = 0.0
    node_types: NodeTypes = NodeTypes()


@cache
def parser_of(load: Callable[[], object]) -> "Parser":
    """The parser of a grammar, one per process."""
    from tree_sitter import Language, Parser

    return Parser(Language(load()))
