"""Doctests of Python functions -> programs for the sandbox, and problems in HumanEval's form.

A row is executable if its function, cut out of its module, passes its own doctests. A small runner
executes them in the function's program; it follows `doctest` in ellipses, whitespace and
tracebacks, and starts faster than importing that module.

A problem shows the function up to the prose of its docstring; the examples become its tests and are
not shown. It is graded as HumanEval's problems are: the tests call the function from outside, so
only examples that pass, return plain data and only compute can be used (`plain_examples`).
"""

import ast
import doctest
import inspect
import re
import textwrap
from collections.abc import Iterator

from tasks.core.languages.protocol import RUNNER, DoctestCandidate, NotParsableError
from tasks.core.languages.python.plain_examples import only_computes
from tasks.core.languages.python.source import parse
from tasks.core.languages.python.standalone import Module, Standalone
from tasks.core.system.parallel import without_gc

MIN_ASSERTS = 2  # of a problem: a single one says too little about a solution
_Example = tuple[doctest.Example, ast.Module]
_RUNNER = """

def {runner}():
    import contextlib, io, re, traceback

    space = dict(globals())
    space["__name__"] = "__main__"
    for source, pattern, error in {examples!r}:
        out = io.StringIO()
        raised = ""
        with contextlib.redirect_stdout(out):
            try:
                exec(compile(source, "<doctest>", "single"), space)
            except Exception as problem:
                raised = "".join(traceback.format_exception_only(problem))
        if raised or error:
            good = bool(raised and error) and re.fullmatch(error, raised, re.DOTALL)
        else:
            got = out.getvalue()
            if pattern[1]:
                got = " ".join(got.split())
            good = re.fullmatch(pattern[0], got, re.DOTALL)
        if not good:
            return source + " gave " + (raised or out.getvalue())[:200]
    return ""
"""


def candidates(text: str) -> Iterator[DoctestCandidate | int]:
    """Functions of a module that have doctests; one that is not self-contained as its line."""
    if ">>>" not in text:
        return
    try:
        with without_gc():
            module = Module(parse(text), text)
    except NotParsableError:
        return
    for function in module.functions():
        docstring = ast.get_docstring(function, clean=True) or ""
        if ">>>" not in docstring or len(function.body) < 2:
            continue
        line = min([function.lineno, *(d.lineno for d in function.decorator_list)])
        try:
            found = _candidate(module, function, docstring, line)
        except RecursionError:  # an example nested too deeply to be unparsed
            found = None
        yield found or line


def _candidate(
    module: Module, function: ast.FunctionDef, docstring: str, line: int
) -> DoctestCandidate | None:
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
        trees = [parse(example.source) for example in examples]
    except ValueError:  # NotParsableError too
        return None
    kept = [
        (example, tree)
        for example, tree in zip(examples, trees, strict=True)
        if not example.options.get(doctest.SKIP) and not _imports_own(tree, module)
    ]
    used = {n.id for _, tree in kept for n in ast.walk(tree) if isinstance(n, ast.Name)}
    cut = module.cut(function, (name for name in used if module.binds(name)))
    if not kept or cut is None or function.name not in used:
        return None
    runner = _RUNNER.format(runner=RUNNER, examples=[_expected(example) for example, _ in kept])
    program = f"{_prefix(cut)}{cut.function}\n{runner}"
    problem = _problem(cut, function, docstring, kept)
    return DoctestCandidate(line, len(kept), program, *problem)


def _imports_own(tree: ast.Module, module: Module) -> bool:
    """Whether an example imports what its own module defines, from the installed package."""
    return any(
        isinstance(node, ast.ImportFrom) and all(module.binds(alias.name) for alias in node.names)
        for node in tree.body
    )


def _expected(example: doctest.Example) -> tuple[str, tuple[str, bool], str]:
    """(source, (pattern of the output, whether whitespace is normalized), pattern of the
    exception): what the runner needs."""
    options = example.options
    folded = bool(options.get(doctest.NORMALIZE_WHITESPACE))
    want = example.want.replace("<BLANKLINE>\n", "\n")
    error = example.exc_msg or ""
    if folded:
        want = " ".join(want.split())
    if error and options.get(doctest.IGNORE_EXCEPTION_DETAIL):
        error = f"{error.partition(':')[0].strip()}..."
        options = {**options, doctest.ELLIPSIS: True}
    has_ellipsis = bool(options.get(doctest.ELLIPSIS))
    return example.source, (_pattern(want, has_ellipsis), folded), _pattern(error, has_ellipsis)


def _pattern(text: str, has_ellipsis: bool) -> str:
    return ".*".join(map(re.escape, text.split("..."))) if has_ellipsis else re.escape(text)


def _problem(
    cut: Standalone,
    function: ast.FunctionDef,
    docstring: str,
    examples: list[_Example],
) -> tuple[str, ...]:
    """The fields of a candidate's problem; none if too few of its examples can be checked from
    outside."""
    test = _test(function.name, cut.names - {function.name}, examples)
    prose = _prose(docstring)
    node = parse(cut.function).body[0]
    if test is None or not prose or not isinstance(node, ast.FunctionDef):
        return ()
    first, second = node.body[0], node.body[1]
    if second.lineno <= (first.end_lineno or first.lineno):
        return ()  # the body begins on the docstring's line, so no line separates them
    lines = cut.function.split("\n")
    indent = " " * first.col_offset
    quoted = prose.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    shown = textwrap.indent(f'"""{quoted}\n"""', indent)
    prompt = f"{_prefix(cut)}{chr(10).join(lines[: first.lineno - 1])}\n{shown}\n"
    return prompt, function.name, "\n".join(lines[first.end_lineno :]) + "\n", test


def _prefix(cut: Standalone) -> str:
    """The context of a function, as it precedes the function."""
    return f"{cut.context}\n\n\n" if cut.context else ""


def _prose(docstring: str) -> str:
    """A docstring up to its first example, without a heading of examples."""
    before = inspect.cleandoc(docstring.partition(">>>")[0])
    kept = re.sub(r"\n\s*(?:examples?|usage)s?\s*:*\s*(?:\n[-=~]+)?\s*$", "", before, flags=re.I)
    return kept.strip()


def _test(entry: str, helpers: frozenset[str], examples: list[_Example]) -> str | None:
    """`check(candidate)` with the examples that show a value; None if they are too few."""
    lines = ["def check(candidate):", f"    space = {{{entry!r}: candidate}}"]
    asserts = 0
    known: set[str] = set()
    for example, tree in examples:
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if names & helpers:
            return None  # the tests have only the function itself
        is_value = len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr) and example.want
        # the checker runs these texts, which are not trusted
        if example.exc_msg or example.options or not only_computes(tree, entry, known):
            continue
        if not is_value:
            lines.append(f"    exec({example.source!r}, space)")
        elif entry in names:
            show, source = _shown(tree, example.source)
            wanted = example.want.rstrip("\n")
            lines.append(f"    assert {show}(eval({source!r}, space)) == {wanted!r}")
            asserts += 1
    return "\n".join(lines) + "\n" if asserts >= MIN_ASSERTS else None


def _shown(tree: ast.Module, source: str) -> tuple[str, str]:
    """The function that shows an example's value, and the expression of the value: print(x) shows
    str(x)."""
    call = tree.body[0].value if isinstance(tree.body[0], ast.Expr) else None
    if (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "print"
        and len(call.args) == 1
        and not call.keywords
    ):
        return "str", ast.unparse(call.args[0])
    return "repr", source.strip()
