"""Normalized syntax tree of a module: without what cannot change behavior.

Left out are docstrings, comments, positions, the order of imports, the names of modules, and
annotations that nothing reads. Annotations stay in class bodies (dataclasses, pydantic models) and
on functions with a decorator that is not known to ignore them (`triton.jit`).
"""

import ast
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.core.cache.code.imported_names import ImportedNames
from tasks.core.cache.code.project_files import is_of_project

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


class Normalize(ast.NodeTransformer):
    """Drop what cannot change behavior: docstrings, annotations that nothing reads, the order of
    imports and the names of modules."""

    def __init__(self, names: ImportedNames) -> None:
        self._names = names

    def visit_Module(self, node: ast.Module) -> ast.AST:
        """Strip the module docstring."""
        _drop_docstring(node.body)
        return self._with_sorted_imports(node)

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
        self._with_sorted_imports(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Strip the docstring; annotated fields stay as they are."""
        _drop_docstring(node.body)
        body: list[ast.stmt] = []
        for statement in node.body:
            is_field = isinstance(statement, ast.AnnAssign)
            kept: Any = self.generic_visit(statement) if is_field else self.visit(statement)
            body += kept if isinstance(kept, list) else [kept] if kept is not None else []
        node.body = body or [ast.Pass()]
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.bases = [self.visit(b) for b in node.bases]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """`x: int = 1` -> `x = 1`; a bare `x: int` disappears."""
        if node.value is None:
            return None
        assign = ast.Assign(targets=[node.target], value=node.value, lineno=0, col_offset=0)
        return self.generic_visit(assign)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """`if TYPE_CHECKING:` never runs."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse:
            return None
        return self._with_sorted_imports(node)

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        """One statement a module."""
        return [self._import(alias) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.stmt]:
        """One statement a symbol, without the name of a module of this project."""
        base = self._names.base_of(node)
        if not is_of_project(base):
            return [ast.ImportFrom(base, [alias], 0) for alias in node.names]
        statements: list[ast.stmt] = []
        for alias in node.names:
            if self._names.module_of(alias.asname or alias.name) is None:
                self._names.symbol(base, alias)
                statements.append(ast.ImportFrom("", [alias], 0))
        return statements

    def _import(self, alias: ast.alias) -> ast.stmt:
        if alias.asname and self._names.module_of(alias.asname):
            return ast.Import([ast.alias("", None)])
        return ast.Import([alias])

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A name that is bound to a module of this project becomes that module's placeholder."""
        module = self._names.module_of(node.id)
        return node if module is None else ast.Name(self._names.placeholder(module), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """A string that names a module of this project becomes that module's placeholder."""
        if isinstance(node.value, str):
            return ast.Constant(self._names.in_text(node.value))
        return node

    def _with_sorted_imports(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        for name in ("body", "orelse"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                statements[:] = _sort_imports(statements)
        return node


def _sort_imports(statements: Sequence[ast.stmt]) -> Iterable[ast.stmt]:
    """Statements with each run of imports in an order that does not depend on the file's."""
    run: list[ast.stmt] = []
    for statement in statements:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            run.append(statement)
            continue
        yield from sorted(run, key=text_of)
        run = []
        yield statement
    yield from sorted(run, key=text_of)


def _last_name(decorator: ast.expr) -> str:
    """`a.b.name(...)` -> "name"."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return getattr(called, "attr", getattr(called, "id", ""))


def _drop_docstring(body: list[ast.stmt]) -> None:
    """Remove a leading string expression, in place."""
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *_]:
            del body[0]


def text_of(value: object) -> str:
    """A syntax tree as text, the same in every version of Python: absent and empty fields, which
    differ between versions, are left out."""
    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = (
        f"{name}={text_of(field)}"
        for name, field in ast.iter_fields(value)
        if field not in (None, []) and name != "kind"  # of a string: u"" or ""
    )
    return f"{type(value).__name__}({','.join(fields)})"
