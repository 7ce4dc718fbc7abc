"""Whether a user's test can be checked from another process: found from its text.

In isolated mode, a test calls the answer's function over a pipe that carries plain data only. A
test that needs more (functions as arguments, classes, attributes of a result, printed output ...)
would judge a correct answer wrong. The rules name what is known to work; anything else needs the
test and the answer in one process.
"""

import ast
import builtins
from collections.abc import Collection, Iterator

_MODULES = {"cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools"}
_MODULES |= {"itertools", "json", "math", "operator", "pathlib", "re", "statistics", "string"}
_MODULES |= {"typing", "uuid"}
_STATE = {"getcontext", "localcontext", "setcontext", "open", "input", "print", "globals"}
_TYPES = {"bool", "bytes", "bytearray", "complex", "dict", "float", "frozenset", "int", "list"}
_TYPES |= {"range", "set", "str", "tuple", "type"}


def why_together(tests: str, entry: str, known: Collection[str] = ()) -> str:
    """Why a test needs the answer in its own process; "" if it does not.

    Args:
        tests: Python text that parses.
        entry: The function or class that is tested.
        known: Names that the prompt defines, which the checker has, too.
    """
    tree = ast.parse(tests)
    called = {entry, *_parameters_of_check(tree)}
    if entry[:1].isupper():
        return f"{entry} is a class"
    reasons = (
        _unusual_statement(tree),
        _undefined_name(tree, {*known, *called}),
        _entry_as_value(tree, called),
        _function_as_argument(tree, called),
        _use_of_result(tree, called),
    )
    return next((reason for reason in reasons if reason), "")


def _parameters_of_check(tree: ast.Module) -> list[str]:
    checks = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check")
    return [argument.arg for function in checks for argument in function.args.args[:1]]


def _unusual_statement(tree: ast.Module) -> str:
    return next((why for node in ast.walk(tree) if (why := _unusual(node))), "")


def _unusual(node: ast.AST) -> str:
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    modules += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
    why = "".join(f"imports {m}" for m in modules if m.partition(".")[0] not in _MODULES)
    if isinstance(node, ast.ClassDef):
        why = "defines a class"
    elif isinstance(node, ast.With | ast.AsyncWith | ast.AsyncFunctionDef | ast.Await):
        why = "uses with or await"
    elif isinstance(node, ast.ExceptHandler) and node.name:
        why = "reads an exception"
    elif isinstance(node, ast.Name) and (node.id in _STATE or node.id.startswith("Stop")):
        why = f"uses {node.id}"
    elif isinstance(node, ast.Attribute) and node.attr in _STATE:
        why = f"uses {node.attr}"
    return f"the test {why}" if why else ""


def _undefined_name(tree: ast.Module, known: Collection[str]) -> str:
    bound = {*known, *dir(builtins), "__name__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    used = (n.id for n in ast.walk(tree) if isinstance(n, ast.Name))
    missing = next((name for name in used if name not in bound), "")
    return f"the test uses {missing} of the answer" if missing else ""


def _entry_as_value(tree: ast.Module, called: Collection[str]) -> str:
    """Where the function itself is more than called, or passed to a function that calls it."""
    plain: set[ast.expr] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            plain.add(node.func)
            if node.func.id not in ("isinstance", "issubclass", *called):
                plain.update(node.args)
                plain.update(keyword.value for keyword in node.keywords)
    uses = (n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in called)
    found = next((name.id for name in uses if name not in plain), "")
    return f"the test uses {found} as an object" if found else ""


def _calls(node: ast.AST, called: Collection[str]) -> Iterator[ast.Call]:
    """Calls of the function below a node."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and getattr(part.func, "id", None) in called:
            yield part


def _function_as_argument(tree: ast.Module, called: Collection[str]) -> str:
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    functions |= set(dir(builtins)) - {"True", "False", "None", "__name__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda | ast.GeneratorExp):
            functions |= {
                n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)
            }
    for call in _calls(tree, called):
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        parts = [part for argument in arguments for part in ast.walk(argument)]
        functions_called = {part.func for part in parts if isinstance(part, ast.Call)}
        for part in parts:
            handed = isinstance(part, ast.Name) and part.id in functions
            handed = handed or isinstance(part, ast.Lambda | ast.GeneratorExp | ast.Attribute)
            if handed and part not in functions_called:
                return "the test passes a function"
    return ""


def _use_of_result(tree: ast.Module, called: Collection[str]) -> str:
    """Where more is done with a result than comparing it and iterating over it."""
    results = _result_names(tree, called)

    def is_result(node: ast.expr) -> bool:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        return bool(names & results) or any(True for _ in _calls(node, called))

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_result(node.value):
            return f"the test uses .{node.attr} of a result"
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            if name in results or (not name and is_result(node.func)):
                return "the test calls a result"
            if name in ("isinstance", "issubclass", "getattr", "hasattr", "vars", "dir"):
                parts = (part for other in node.args[1:] for part in ast.walk(other))
                types = {part.id for part in parts if isinstance(part, ast.Name)}
                if name != "isinstance" or not types <= _TYPES:
                    return f"the test uses {name} on a result"
    return ""


def _result_names(tree: ast.Module, called: Collection[str]) -> set[str]:
    """Variables that may hold a result, directly or as a part."""
    found: set[str] = set()
    while True:
        before = len(found)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value:
                source: ast.expr = node.value
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            elif isinstance(node, ast.For | ast.comprehension):
                source, targets = node.iter, [node.target]
            else:
                continue
            names = {part.id for part in ast.walk(source) if isinstance(part, ast.Name)}
            if names & found or any(True for _ in _calls(source, called)):
                found |= {
                    n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)
                }
        if len(found) == before:
            return found
