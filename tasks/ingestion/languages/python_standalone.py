"""A function and what it needs of its module, as a text that runs by itself.

Names that a function uses are looked up among the statements of its module, those that these use
likewise, until all are found. Only the standard library may be imported: a function that leans on
anything else, or on names that can't be found, does not stand alone.
"""

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_CONTEXT_LINES = 150
_KNOWN = frozenset(dir(builtins)) | {"__name__", "__doc__", "__file__"}
_Bindings = dict[str, list[int]]


@dataclass(frozen=True)
class Standalone:
    """A function that runs by itself.

    Attributes:
        context: Imports and helpers in the order of the module, "" if it needs none.
        function: Its source.
        names: Names that `context` and `function` bind.
    """

    context: str
    function: str
    names: frozenset[str]


class Module:
    """A parsed module, ready to cut functions out of."""

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
        """A function with its context; None if it does not stand alone.

        Args:
            function: One of `functions`.
            also: More names that must be there.
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
                return None  # it may come from anywhere
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
    """Names that a statement of a module binds there."""
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
    """All names that stand in a statement, and so more than it takes from the module."""
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
