"""Digest of the code that a stage can reach: what makes it run again when logic changes, and only
then.

From the module of the stage's `run`, imports inside this project are followed statically: imports
inside functions, too, and modules named by a string, as for `python -m`. Every module is digested
definition by definition as a syntax tree without docstrings, comments, positions and the
annotations that have no effect, so formatting never retrains a model and a changed helper or
constant always does.
A whole module counts even if a stage calls only part of it: that errs on the side of running again.

Annotations stay where something may read them: in class bodies (dataclasses, pydantic models) and
on functions with a decorator that is not known to leave them alone (`triton.jit`).

Not followed: `tasks.core.settings` and `tasks.core.config`, whose effect on a stage is the values
in its key; `tasks.core.errors` and `tasks.core.progress`, which shape messages and no output.
"""

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tasks.core.home import REPOSITORY
from tasks.core.memo import Memo

PACKAGES = ("tasks",)
FORM = 2  # of what is remembered of a file; raise it when `_parse` changes
WITHOUT_EFFECT = (
    "tasks.core.settings",
    "tasks.core.config",
    "tasks.core.errors",
    "tasks.core.progress",
    "tasks.core.stage",
    "tasks.core.home",
)

# decorators, by their last name, that do not read the annotations of what they decorate
BLIND_DECORATORS = frozenset(
    [
        "cache",
        "cached_property",
        "classmethod",
        "contextmanager",
        "inference_mode",
        "lru_cache",
        "no_grad",
        "property",
        "setter",
        "staticmethod",
    ]
)

Definitions = Mapping[str, str]


def closure(reference: str, memo: Memo, root: Path = REPOSITORY) -> dict[str, Definitions]:
    """Digests of all definitions that "module:function" can reach.

    Args:
        reference: A stage's `run`.
        memo: Remembers files that have not changed.
        root: Folder that holds the `tasks` package.

    Returns: {module: {definition: short digest}}, sorted; statements outside definitions stand
        under "<module>".
    """
    waiting = [reference.partition(":")[0]]
    found: dict[str, Definitions] = {}
    while waiting:
        module = waiting.pop()
        if module in found or _is_without_effect(module):
            continue
        path = _file_of(module, root)
        if path is None:
            continue
        parsed = json.loads(
            memo.recall(f"code {FORM}:{module}", path, partial(_parse, module=module))
        )
        found[module] = parsed["definitions"]
        waiting.extend(parsed["imports"])
        waiting.extend(_parents(module))
    return dict(sorted(found.items()))


def _is_without_effect(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in WITHOUT_EFFECT)


def _parents(module: str) -> list[str]:
    """Packages whose `__init__` runs when `module` is imported."""
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _file_of(module: str, root: Path) -> Path | None:
    """The source file of a module of this project; None for any other module."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _parse(path: Path, module: str) -> str:
    """Digest one file's definitions and list what it imports, as JSON."""
    tree = ast.parse(path.read_bytes())
    imports = sorted(_imports(tree, module, path.name == "__init__.py"))
    tree = _Normalise().visit(tree)
    parts: dict[str, list[str]] = {}
    for node in tree.body:
        name = getattr(node, "name", None) or "<module>"
        parts.setdefault(name, []).append(_text(node))
    definitions = {name: _short("\n".join(texts)) for name, texts in sorted(parts.items())}
    return json.dumps({"definitions": definitions, "imports": imports})


def _text(value: object) -> str:
    """A syntax tree as text, the same in every version of Python: absent and empty fields, which
    come and go with versions, are left out."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = (
        f"{name}={_text(field)}"
        for name, field in ast.iter_fields(value)
        if field not in (None, []) and name != "kind"  # of a string: u"" or ""
    )
    return f"{type(value).__name__}({','.join(fields)})"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _imports(tree: ast.Module, module: str, is_package: bool) -> set[str]:
    """Modules that may be imported anywhere in a file; `from a import b` counts both a and a.b.

    So does a string that is the name of a module: a process is started with it.
    """
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith(tuple(f"{package}." for package in PACKAGES)):
                names.add(node.value)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*kept, base] if base else kept)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


class _Normalise(ast.NodeTransformer):
    """Drop what cannot change behaviour: docstrings, and annotations that nothing reads."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        """Strip the module docstring."""
        _drop_docstring(node.body)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Strip docstring and annotations of a function."""
        return self._strip(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """Strip docstring and annotations of a coroutine."""
        return self._strip(node)

    def _strip(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        _drop_docstring(node.body)
        if all(_last_name(decorator) in BLIND_DECORATORS for decorator in node.decorator_list):
            node.returns = None
            own = node.args
            for argument in (*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg):
                if argument is not None:
                    argument.annotation = None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Strip the docstring; annotated fields stay as they are."""
        fields = {id(statement) for statement in node.body if isinstance(statement, ast.AnnAssign)}
        _drop_docstring(node.body)
        kept = [s if id(s) in fields else self.visit(s) for s in node.body]
        node.body = [s for s in kept if s is not None] or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """`x: int = 1` -> `x = 1`; a bare `x: int` disappears."""
        if node.value is None:
            return None
        self.generic_visit(node)
        return ast.Assign(targets=[node.target], value=node.value, lineno=0, col_offset=0)


def _last_name(decorator: ast.expr) -> str:
    """`a.b.name(...)` -> "name"."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return getattr(called, "attr", getattr(called, "id", ""))


def _drop_docstring(body: list[ast.stmt]) -> None:
    """Remove a leading string expression, in place."""
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *_]:
            del body[0]
