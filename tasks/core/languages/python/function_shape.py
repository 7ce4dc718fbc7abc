"""Digest of a Python function's syntax tree that renaming and reformatting do not change.

Names that the function binds itself (arguments, variables, its own name) are numbered in order of
appearance; names from outside, attributes and constants count as they are. Docstrings, annotations,
decorators and a leading self or cls do not count.
"""

import ast
from collections.abc import Hashable
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
    "simple",
}


def outline(function: Function) -> Hashable:
    """Kinds of the first two levels of nodes: cheap, and equal for functions of equal shape."""
    return (
        len(plain_arguments(function)),
        *(
            (
                _kind(n),
                type(getattr(n, "value", None) or getattr(n, "test", None)),
                *map(_kind, getattr(n, "body", ())),
            )
            for n in body_of(function)
        ),
    )


def shape(function: Function) -> bytes | None:
    """The digest; None for a function that is nested too deep to walk, such as a sum of a thousand
    terms."""
    bound = _bound_names(function)
    numbers: dict[str, str] = {}
    parts: list[str] = []
    try:
        for argument in plain_arguments(function):
            _name(argument.arg, bound, numbers, parts)
        spec = function.args
        for extra in (spec.vararg, *spec.kwonlyargs, spec.kwarg, *spec.defaults, *spec.kw_defaults):
            _dump(extra, bound, numbers, parts)
        for statement in body_of(function):
            _dump(statement, bound, numbers, parts)
    except RecursionError:
        return None
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def plain_arguments(function: Function) -> list[ast.arg]:
    """Positional arguments without a leading self or cls."""
    plain = [*function.args.posonlyargs, *function.args.args]
    return plain[1:] if plain and plain[0].arg in ("self", "cls") else plain


def _bound_names(function: Function) -> set[str]:
    """Names that the function binds, nested functions included."""
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
    return bound


def body_of(function: Function) -> list[ast.stmt]:
    """Statements without the docstring and other bare constants."""
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
        # `x: int = 1` has the shape of `x = 1`: same kind of node, and its one target as a list
        is_annotated = isinstance(node, ast.AnnAssign)
        parts.append("Assign" if is_annotated else type(node).__name__)
        for field, value in ast.iter_fields(node):
            if field in _LEFT_OUT:
                continue
            # `arg` of a keyword is a name of the called function, not one that is bound here
            is_name = field in ("arg", "name") and not isinstance(node, ast.keyword)
            if is_name and isinstance(value, str):
                _name(value, bound, numbers, parts)
            else:
                is_target = is_annotated and field == "target"
                _dump([value] if is_target else value, bound, numbers, parts)
    elif isinstance(node, list):
        parts.append(f"[{len(node)}")  # with its length, so that lists cannot run into each other
        for inner in node:
            _dump(inner, bound, numbers, parts)
    else:
        parts.append(repr(node))


def _kind(node: ast.stmt) -> type:
    return ast.Assign if isinstance(node, ast.AnnAssign) else type(node)
