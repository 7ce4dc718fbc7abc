"""A self-contained Python function: its source with the imports and helpers that it needs.

Names that a function uses are looked up among the statements of its module, those that these use
likewise, until all are found. Only the standard library may be imported: a function that needs
anything else, or names that can't be found, is not self-contained.
"""

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_CONTEXT_LINES = 150  # bounds the prompt of a problem
_KNOWN = frozenset(dir(builtins)) | {"__name__", "__doc__", "__file__"}
_Bindings = dict[str, list[int]]


@dataclass(frozen=True)
class Standalone:
    """A self-contained function.

    Attributes:
        context: Imports and helpers in the order of the module, "" if it needs none.
        function: Its source.
        names: Names that `context` and `function` bind.
    """

    context: str
    function: str
    names: frozenset[str]


class Module:
    """A parsed module from which functions can be cut."""

    def __init__(self, tree: ast.Module, text: str) -> None:
        self._body = tree.body
        self._lines = text.split("\n")
        self._bound: _Bindings = {}
        self._has_star = False
        for number, node in enumerate(tree.body):
            for name in _binds(node):
                self._has_star |= name == "*"
                self._bound.setdefault(name, []).append(number)

    def functions(self) -> Iterator[ast.FunctionDef]:
        """Functions of the module itself that are defined once."""
        for node in self._body:
            if isinstance(node, ast.FunctionDef) and len(self._bound[node.name]) == 1:
                yield node

    def binds(self, name: str) -> bool:
        """Whether the module itself defines a name."""
        return name in self._bound

    def cut(self, function: ast.FunctionDef, also: Iterable[str]) -> Standalone | None:
        """A function with its context; None if it is not self-contained.

        Args:
            function: One of `functions`.
            also: More names that the context must bind.
        """
        wanted = [*_uses(function), *also]
        own = self._bound[function.name][0]
        taken: set[int] = set()
        seen = {function.name}
        while wanted:
            name = wanted.pop()
            if name in seen or (name in _KNOWN and name not in self._bound):
                continue
            seen.add(name)
            for number in self._bound.get(name, ()):
                if number not in taken and number != own:
                    taken.add(number)
                    wanted += _uses(self._body[number])
            if name not in self._bound and self._has_star:
                return None  # a star import may bind it
        needed = [self._body[number] for number in sorted(taken)]
        if not all(_is_standard(node) for node in needed):
            return None
        if sum((n.end_lineno or n.lineno) - n.lineno + 1 for n in needed) > MAX_CONTEXT_LINES:
            return None
        names = {name for node in needed for name in _binds(node)} | {function.name}
        context = "\n".join(self._source(node) for node in needed)
        return Standalone(context, self._source(function), frozenset(names))

    def _source(self, node: ast.stmt) -> str:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        return "\n".join(self._lines[first - 1 : node.end_lineno])


def _binds(node: ast.stmt) -> Iterator[str]:
    """Names that a statement binds in its module."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            for alias in inner.names:
                yield alias.asname or alias.name.partition(".")[0]
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.id
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield inner.name


def _uses(node: ast.stmt) -> list[str]:
    """All names in a statement: a superset of those that it takes from the module."""
    return [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]


def _is_standard(node: ast.stmt) -> bool:
    """Whether a statement imports nothing but the standard library."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            tops = [alias.name.partition(".")[0] for alias in inner.names]
        elif isinstance(inner, ast.ImportFrom):
            tops = ["" if inner.level else (inner.module or "").partition(".")[0]]
        else:
            continue
        if not all(top in sys.stdlib_module_names for top in tops):
            return False
    return True
