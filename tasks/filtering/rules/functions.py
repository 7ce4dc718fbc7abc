"""Rules about functions, on the syntax tree: text can't tell `def f() -> int:` or "debug" from what
it looks for."""

import ast
from collections.abc import Iterator

from tasks.filtering.rules.row_view import Sample

_LOOP, _TRY = ("body", "orelse"), ("body", "orelse", "finalbody", "handlers")
# fields that hold statements of the function itself
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


def syntax_errors(row: Sample) -> float:
    """1 if the output does not parse as Python, else 0."""
    return float(row.parsed[0] is None)


def returned_values(row: Sample) -> float:
    """`return` statements of the function itself that give something other than None."""
    if row.function is None:
        return 0
    return sum(not _is_none(node.value) for node in _own_returns(row.function.body))


def argument_count(row: Sample) -> float:
    """Arguments of the function; `self` and `cls` in the first place don't count, `*args` and
    `**kwargs` do."""
    if row.function is None:
        return 0
    spec = row.function.args
    plain = [*spec.posonlyargs, *spec.args]
    bound = bool(plain) and plain[0].arg in ("self", "cls")
    return len(plain) - bound + len(spec.kwonlyargs) + bool(spec.vararg) + bool(spec.kwarg)


def docstring_characters(row: Sample) -> float:
    """Length of the docstring in characters."""
    return len(row.docstring)


def docstring_words(row: Sample) -> float:
    """Words of the docstring."""
    return len(row.docstring.split())


def _own_returns(body: list[ast.stmt]) -> Iterator[ast.Return]:
    """`return` statements of a body at all depths, those of functions and classes inside aside."""
    waiting: list[ast.AST] = [*body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return):
            yield node
        for name in _BODIES.get(type(node), ()):
            waiting.extend(getattr(node, name))


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)
