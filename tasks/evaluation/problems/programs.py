"""Answers -> programs: the function of an answer and what it may need, for the sandbox to run."""

import ast
import re
import textwrap
from collections.abc import Sequence

from tasks.evaluation.generation.stop_rules import TOP_LEVEL, answer_end, parsed
from tasks.evaluation.problems.languages.sources import unclosed
from tasks.evaluation.problems.posing import parts
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.results import COMPLETION

_KEPT = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
)
_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


def program_of(problem: Problem, style: str, text: str) -> str:
    """The program of an answer: the function and what it may need, nothing after it.

    Args:
        problem: What was posed.
        style: How it was posed.
        text: What was generated, without the end marker.

    Returns:
        Text in the problem's language; in Python, where no prefix of the answer parses, all of it,
        so that the outcome is syntax.
    """
    if problem.language:
        given, end = problem.prompt.rstrip(), answer_end(problem.prompt, problem.stop_words, text)
        # the answer ends with its function; the class around it, as in Java, is closed here
        around = 0 if problem.stop_words or end is None else unclosed(problem.prompt) - 1
        return f"{given}{text[:end]}\n" + "}\n" * around
    if problem.in_words:
        return trim(textwrap.dedent(_unfenced(text)).strip() + "\n", problem.entry)
    if style == COMPLETION:
        return trim(problem.prompt.rstrip() + text, problem.entry)
    code = _unfenced(text)
    if re.search(rf"^\s*(async )?def {re.escape(problem.entry)}\b", code, re.MULTILINE):
        before, _, _ = parts(problem)
        return trim(f"{before}\n\n{textwrap.dedent(code).strip()}\n", problem.entry)
    # only a body, perhaps without its indentation
    body = code.strip("\n")
    if body and not body[0].isspace():
        body = textwrap.indent(body, "    ")
    return trim(f"{problem.prompt.rstrip()}\n{body}\n", problem.entry)


def trim(source: str, entry: str) -> str:
    """Cut a program after what parses, and drop top-level statements that only run something.

    Loops, `try`, `if`, `with` and calls of methods are kept if a name that they set or change is
    used by what is kept: a table that a loop fills belongs to the program, a loop of examples not.

    Only whole statements after the entry function are dropped to make the rest parse: a function
    that was cut short stays a syntax error.
    """
    tree, text = _longest(source, entry)
    if tree is None:
        return source
    lines = text.encode().splitlines(keepends=True)  # positions count lines as Python does
    kept = _needed(tree.body, entry)
    chunks = [b"".join(lines[_first_line(n) - 1 : n.end_lineno]).rstrip() for n in kept]
    return b"\n\n".join(chunks).decode() + "\n" if chunks else ""


def _needed(body: Sequence[ast.stmt], entry: str) -> list[ast.stmt]:
    """The definitions of a program, and the statements that set up what these use."""
    kept: set[ast.stmt] = {node for node in body if isinstance(node, _KEPT)}
    used = {entry}.union(*map(_names_used, kept))
    imports = (node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    modules = {name for node in imports for name in _names_changed(node)}
    while True:
        changed = {node: _names_changed(node) - modules for node in body if node not in kept}
        new = {node for node, names in changed.items() if names & used}
        if not new:
            return [node for node in body if node in kept]
        kept |= new
        used = used.union(*map(_names_used, new))


def _names_used(node: ast.AST) -> set[str]:
    """Names that a statement reads from outside: not the local variables of its functions."""
    found = set()
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
            found.add(part.id)
        found |= _names_used(part)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        own = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        inside = list(ast.walk(node))
        stored = (n for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        outer = {
            name
            for part in inside
            if isinstance(part, ast.Global | ast.Nonlocal)
            for name in part.names
        }
        return (found - own - {n.id for n in stored}) | outer
    return found


def _names_changed(node: ast.stmt) -> set[str]:
    """Names that a top-level statement binds, assigns into, or calls a method of."""
    if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call):
        return set()
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
            found.add(part.id)
        elif isinstance(part, ast.FunctionDef | ast.ClassDef):
            found.add(part.name)
        elif isinstance(part, ast.alias):
            found.add((part.asname or part.name).partition(".")[0])
        elif isinstance(part, ast.Subscript) and not isinstance(part.ctx, ast.Load):
            found |= {n.id for n in ast.walk(part.value) if isinstance(n, ast.Name)}
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            called = part.func.value
            found |= {called.id} if isinstance(called, ast.Name) else set()
    return found


def _longest(source: str, entry: str) -> tuple[ast.Module | None, str]:
    """The longest text that parses, cut only where a statement after the entry function begins."""
    if (tree := parsed(source)) is not None:
        return tree, source
    entries = list(
        re.finditer(rf"^(async def|def|class) {re.escape(entry)}\b", source, re.MULTILINE)
    )
    first = entries[0].end() if entries else len(source)
    cuts = [m.start() for m in TOP_LEVEL.finditer(source) if m.start() > first]
    for cut in reversed(cuts):
        if (tree := parsed(source[:cut])) is not None:
            return tree, source[:cut]
    return None, source


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def _unfenced(text: str) -> str:
    """The first fenced block of an answer, or the answer."""
    found = _FENCE.search(text)
    return found.group(1) if found else text
