"""Python source code as a syntax tree, by the standard library's `ast`.

A tree is needed because text cannot tell `def f() -> int:` in a string from a definition.
"""

import ast
import warnings
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from tasks.core.languages.python_shape import Function, body_of, outline, plain_arguments, shape

LONG_STATEMENT = 20  # nodes: more than a comprehension with a condition has

_LOOP, _TRY = ("body", "orelse"), ("body", "orelse", "finalbody", "handlers")
# fields that hold statements of the function itself; definitions are left out on purpose
_BODIES: dict[type[ast.AST], tuple[str, ...]] = {
    ast.If: _LOOP,
    ast.For: _LOOP,
    ast.AsyncFor: _LOOP,
    ast.While: _LOOP,
    ast.With: ("body",),
    ast.AsyncWith: ("body",),
    ast.Try: _TRY,
    ast.TryStar: _TRY,
    ast.ExceptHandler: ("body",),
    ast.Match: ("cases",),
    ast.match_case: ("body",),
}


@dataclass(frozen=True)
class PythonFunction:
    """A `ParsedFunction`."""

    node: Function

    @property
    def name(self) -> str:
        """The name in its definition."""
        return self.node.name

    @property
    def docstring(self) -> str:
        """Its docstring without indentation; "" if it has none."""
        return ast.get_docstring(self.node) or ""

    @property
    def argument_count(self) -> int:
        """`*args` and `**kwargs` count one each; `self` and `cls` in the first place do not."""
        spec = self.node.args
        named = len(plain_arguments(self.node)) + len(spec.kwonlyargs)
        return named + bool(spec.vararg) + bool(spec.kwarg)

    @property
    def returned_values(self) -> int:
        """`return` statements of the function itself with a value other than None."""
        found, waiting = 0, list[ast.AST](self.node.body)
        while waiting:  # not recursive: source code can be nested deeper than Python's stack
            node = waiting.pop()
            found += isinstance(node, ast.Return) and not _is_none(node.value)
            for name in _BODIES.get(type(node), ()):
                waiting.extend(getattr(node, name))
        return found

    @property
    def is_distinctive(self) -> bool:
        """More than one statement without the docstring, or at least `LONG_STATEMENT` nodes."""
        nodes = [inner for statement in body_of(self.node) for inner in ast.walk(statement)]
        statements = sum(isinstance(node, ast.stmt) for node in nodes)
        return statements > 1 or len(nodes) >= LONG_STATEMENT

    def outline(self) -> Hashable:
        """See `python_shape.outline`."""
        return outline(self.node)

    def shape(self) -> bytes | None:
        """See `python_shape.shape`."""
        return shape(self.node)


@dataclass(frozen=True)
class PythonSource:
    """A `ParsedSource`."""

    module: ast.Module

    def functions(self) -> Iterator[PythonFunction]:
        """Functions at the top level, async ones included."""
        yield from (PythonFunction(n) for n in self.module.body if isinstance(n, Function))

    def functions_and_methods(self) -> Iterator[PythonFunction]:
        """Functions at the top level and methods of its classes."""
        for node in self.module.body:
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            yield from (PythonFunction(n) for n in inner if isinstance(n, Function))


def parse_python(text: str) -> tuple[PythonSource | None, str]:
    """The tree and "", or None and the reason why the text does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the data are not our warnings
        try:
            return PythonSource(ast.parse(text)), ""
        except SyntaxError as error:
            return None, f"line {error.lineno or 0}: {error.msg}"
        except (ValueError, RecursionError, MemoryError) as error:
            # null bytes; expressions nested too deep for the parser
            return None, str(error) or type(error).__name__


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)
