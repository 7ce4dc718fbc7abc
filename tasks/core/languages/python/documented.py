"""Python: documented functions of a module, by its syntax tree.

The instruction is the docstring's first paragraph and the signature (decorators to colon); the
output begins with the same signature. The docstring itself is left out of the output by default:
its first paragraph would be learned as a copy of the instruction and the rest as prose that cannot
be predicted, and both would distort the loss.

Functions of modules and methods of classes count, functions inside functions do not: they depend on
names that the row does not show. A file is parsed once; texts are cut from its lines, so comments
and layout stay as written.
"""

import ast
import inspect
from collections import Counter
from collections.abc import Iterator

from tasks.core.languages.protocol import DocumentedFunction

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def documented_functions(
    module: ast.Module, text: str, keep_docstring: bool, methods: bool
) -> tuple[list[DocumentedFunction], Counter[str]]:
    """Documented functions of a module, in the order of the file, and how many others were skipped,
    by reason.

    Args:
        module: The tree of `text`.
        text: A module, with "\n" line ends.
        keep_docstring: Leave the docstring in the output.
        methods: Take methods of classes too.
    """
    lines = text.split("\n")
    found, skipped = [], Counter[str]()
    for node, owner in _functions(module.body, "", methods):
        docstring = _docstring(node)
        if docstring is None:
            skipped["functions without docstring"] += 1
        elif len(node.body) == 1:
            skipped["functions with nothing but a docstring"] += 1
        elif paragraph := first_paragraph(docstring):
            found.append(_cut(lines, node, owner, paragraph, keep_docstring))
        else:
            skipped["functions with an empty docstring"] += 1
    return found, skipped


def first_paragraph(docstring: str) -> str:
    """The docstring up to its first empty line, on one line."""
    cleaned = inspect.cleandoc(docstring).strip()
    return " ".join(cleaned.partition("\n\n")[0].split())


def _functions(body: list[ast.stmt], owner: str, methods: bool) -> Iterator[tuple[_Function, str]]:
    """Functions of a body with the class that encloses them; enters classes, if, try and with.

    A chain of a thousand elif is nested a thousand deep in the tree, hence no recursion here.
    """
    waiting = [(node, owner) for node in reversed(body)]
    while waiting:
        node, owner = waiting.pop()
        if isinstance(node, _Function):
            yield node, owner
            continue
        inner: list[ast.stmt] = []
        if isinstance(node, ast.ClassDef):
            inner = node.body if methods else []
            owner = f"{owner}.{node.name}" if owner else node.name
        elif isinstance(node, ast.If | ast.Try | ast.TryStar | ast.With):
            for _, part in ast.iter_fields(node):
                for item in part if isinstance(part, list) else ():
                    if isinstance(item, ast.stmt):
                        inner.append(item)
                    elif isinstance(item, ast.ExceptHandler):
                        inner.extend(item.body)
        waiting.extend((item, owner) for item in reversed(inner))


def _docstring(node: _Function) -> str | None:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return first.value.value if isinstance(first.value.value, str) else None
    return None


def _cut(
    lines: list[str], node: _Function, owner: str, paragraph: str, keep_docstring: bool
) -> DocumentedFunction:
    """Cut signature and source of a function out of the lines of its module."""
    # columns of the tree count UTF-8 bytes, not characters
    docstring = node.body[0]
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    indent = lines[first - 1][: node.col_offset]
    before = lines[docstring.lineno - 1].encode()[: docstring.col_offset].decode()
    signature = _dedent([*lines[first - 1 : docstring.lineno - 1], before], indent).rstrip()
    docstring_end = docstring.end_lineno or docstring.lineno
    end = node.end_lineno or docstring_end
    if keep_docstring or node.body[1].lineno == docstring_end:
        output = _dedent(lines[first - 1 : end], indent)
    else:
        rest = lines[docstring_end:end]
        while rest and not rest[0].strip():
            del rest[0]
        output = f"{signature}\n{_dedent(rest, indent)}"
    head = f"# a method of class {owner}\n" if owner else ""
    symbol = f"{owner}.{node.name}" if owner else node.name
    instruction = f"{paragraph}\n\n{head}{signature}"
    return DocumentedFunction(instruction, output.rstrip(), first, symbol)


def _dedent(lines: list[str], indent: str) -> str:
    """Remove `indent` from every line that has it; a line of a string may have less and stays."""
    return "\n".join(line.removeprefix(indent) for line in lines) if indent else "\n".join(lines)
