"""Rules about functions, on the syntax tree: text can't tell `def f() -> int:` or "debug" from what
it looks for."""

import ast
from collections.abc import Iterator

from tasks.filtering.sample import Sample


def syntax_errors(row: Sample) -> float:
    """1 if the output does not parse as Python, else 0."""
    return float(row.parsed[0] is None)


def returned_values(row: Sample) -> float:
    """`return` statements of the function itself that give something other than None."""
    if row.function is None:
        return 0
    returns = (node for node in _own_nodes(row.function.body) if isinstance(node, ast.Return))
    return sum(not _is_none(node.value) for node in returns)


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


def _own_nodes(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a body at all depths, without those of functions and classes inside."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from _own_nodes(getattr(node, name, []))
        for inner in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _own_nodes(inner.body)


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)
