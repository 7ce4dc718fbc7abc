"""Places in a Python text: where it may be cut, and which parts can be left out to be filled in."""

import ast
from itertools import accumulate

from tasks.core.languages.protocol import Boundary, Span, SpanKind

_BLOCKS = ("body", "orelse", "finalbody")
_LEAVES = (ast.Name, ast.Constant)


def boundaries(module: ast.Module, text: str) -> list[Boundary]:
    """Statements of the module and of its classes, each with decorators and the comments above."""
    lines = text.split("\n")
    starts = _line_starts(lines)
    found = []
    waiting: list[tuple[ast.stmt, int]] = [(node, 0) for node in module.body]
    while waiting:
        node, depth = waiting.pop()
        line = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) - 1
        while line and lines[line - 1].lstrip().startswith("#"):
            line -= 1
        found.append(Boundary(starts[line], depth))
        if isinstance(node, ast.ClassDef):
            waiting.extend((inner, depth + 1) for inner in node.body)
    return sorted(found)


def spans(module: ast.Module, text: str) -> dict[SpanKind, list[Span]]:
    """All parts of a text by kind; expressions of a single name or constant are left out."""
    starts = _line_starts(text.split("\n"))
    found: dict[SpanKind, list[Span]] = {"expression": [], "statement": [], "block": [], "body": []}

    def place(first: ast.expr | ast.stmt, last: ast.expr | ast.stmt) -> Span:
        end_line, end_column = last.end_lineno or last.lineno, last.end_col_offset or 0
        return starts[first.lineno - 1] + first.col_offset, starts[end_line - 1] + end_column

    for node in ast.walk(module):
        if isinstance(node, ast.expr) and not isinstance(node, _LEAVES):
            found["expression"].append(place(node, node))
        elif isinstance(node, ast.stmt):
            found["statement"].append(place(node, node))
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in _BLOCKS if not isinstance(node, ast.Module | ast.ClassDef) else ():
            block = getattr(node, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                found["body" if is_function else "block"].append(place(block[0], block[-1]))
    return found


def _line_starts(lines: list[str]) -> list[int]:
    """The position of each line, in bytes."""
    return [0, *accumulate(len(line.encode()) + 1 for line in lines)]
