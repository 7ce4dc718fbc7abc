"""A function -> a digest of its syntax tree that renaming and reformatting don't change.

Names that the function binds itself (arguments, variables, its own name) are numbered in the order
in which they stand; names from outside, attributes and constants count. Docstring, annotations,
decorators and a leading self or cls don't.
"""

import ast
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
_LEFT_OUT = {
    "annotation",
    "returns",
    "decorator_list",
    "type_comment",
    "type_params",
    "ctx",
    "kind",
}


def functions_of(tree: ast.Module) -> Iterator[Function]:
    """Functions at the top of a module and methods of its classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from (inner for inner in node.body if isinstance(inner, Function))
        elif isinstance(node, Function):
            yield node


def outline(function: Function) -> tuple[Any, ...]:
    """A cheap summary: functions of one shape have one outline."""
    return (
        len(_arguments(function)),
        *(
            (
                _kind(n),
                type(getattr(n, "value", None) or getattr(n, "test", None)),
                *map(_kind, getattr(n, "body", ())),
            )
            for n in _body(function)
        ),
    )


def shape(function: Function) -> bytes | None:
    """The digest; None for a function that is nested too deep to be walked through, as a sum of a
    thousand terms is."""
    try:
        parts = _parts(function)
    except RecursionError:
        return None
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _parts(function: Function) -> list[str]:
    bound = {function.name}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, Function | ast.ClassDef) or (
            isinstance(node, ast.ExceptHandler) and node.name
        ):
            bound.add(node.name or "")
    numbers: dict[str, str] = {}
    parts: list[str] = []
    for argument in _arguments(function):
        _name(argument.arg, bound, numbers, parts)
    spec = function.args
    for extra in (spec.vararg, *spec.kwonlyargs, spec.kwarg, *spec.defaults, *spec.kw_defaults):
        _dump(extra, bound, numbers, parts)
    for statement in _body(function):
        _dump(statement, bound, numbers, parts)
    return parts


def _arguments(function: Function) -> list[ast.arg]:
    plain = [*function.args.posonlyargs, *function.args.args]
    return plain[1:] if plain and plain[0].arg in ("self", "cls") else plain


def _body(function: Function) -> list[ast.stmt]:
    """Statements without the docstring and other bare strings."""
    return [
        node
        for node in function.body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def _name(name: str, bound: set[str], numbers: dict[str, str], parts: list[str]) -> None:
    parts.append(numbers.setdefault(name, f"#{len(numbers)}") if name in bound else name)


def _dump(node: Any, bound: set[str], numbers: dict[str, str], parts: list[str]) -> None:
    if isinstance(node, ast.Name):
        _name(node.id, bound, numbers, parts)
    elif isinstance(node, ast.AST):
        # a variable with an annotation is one without
        parts.append("Assign" if isinstance(node, ast.AnnAssign) else type(node).__name__)
        for field, value in ast.iter_fields(node):
            if field in _LEFT_OUT or field == "simple":
                continue
            if (
                field in ("arg", "name")
                and isinstance(value, str)
                and not isinstance(node, ast.keyword)
            ):
                _name(value, bound, numbers, parts)
            elif isinstance(node, ast.AnnAssign) and field == "target":
                _dump([value], bound, numbers, parts)
            else:
                _dump(value, bound, numbers, parts)
    elif isinstance(node, list):
        parts.append(f"[{len(node)}")
        for inner in node:
            _dump(inner, bound, numbers, parts)
    else:
        parts.append(repr(node))


def _kind(node: ast.stmt) -> type:
    return ast.Assign if isinstance(node, ast.AnnAssign) else type(node)
