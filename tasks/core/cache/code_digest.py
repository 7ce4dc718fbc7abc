"""Code digest of a stage: changes when logic that the stage can reach changes, and only then.

From the module of the stage's `run`, imports inside this project are followed statically: imports
inside functions, too, and modules named by a string, as for `python -m`. Every module is digested
definition by definition as a syntax tree without docstrings, comments, positions and the
annotations that have no effect, so formatting never retrains a model and a changed helper or
constant always does. A whole module counts even if a stage calls only part of it: that errs on the
side of running again.

Three rules make the digest follow behavior and not the layout of the files:

- The order of definitions counts: a decorator may register what it decorates, and a default is
  evaluated where it stands. The order of imports does not.
- Module names do not count. Each import is recorded beside its module as "name=symbol@module";
  `code_digest` replaces the module by the digest of its content. Moving or renaming a module
  therefore keeps every key, and importing a function of the same name from elsewhere does not.
- Annotations stay where something may read them: in class bodies (dataclasses, pydantic models) and
  on functions with a decorator that is not known to ignore them (`triton.jit`).

Data files count, too: every file that is not Python and lies in a package of the closure, or in a
subfolder of it that is no package, is digested by its bytes under its name inside that package
(report templates). Reading such a file by its path therefore needs no declaration that could be
forgotten. Hidden files do not count: editors leave them.

Not followed: `tasks.core.settings`, whose effect on a stage is the values in its key;
`tasks.core.errors` and `tasks.core.progress`, which shape messages and no output.
"""

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tasks.core.cache.digest_cache import DigestCache
from tasks.core.system.home import REPOSITORY

PACKAGES = ("tasks",)
FORM = 4  # of the cached value of a file; raise it when `_parse` changes
WITHOUT_EFFECT = (
    "tasks.core.settings",
    "tasks.core.errors",
    "tasks.core.progress",
    "tasks.core.stage",
    "tasks.core.system.home",
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

# pseudo-definitions of a module
STATEMENTS = "<module>"  # statements outside functions and classes
IMPORTS = "<imports>"  # "name=symbol@module" for each name imported from this project
ORDER = "<order>"  # names of the definitions in their order

Definitions = Mapping[str, str]


class ReadModule(NamedTuple):
    """What a file defines, and the modules of this project that may run when it is imported."""

    definitions: dict[str, str]
    imports: list[str]


Modules = dict[str, ReadModule | None]  # None: not a module of this project


def closure(
    reference: str,
    digests: DigestCache,
    root: Path = REPOSITORY,
    modules: Modules | None = None,
) -> dict[str, Definitions]:
    """Digests of all definitions that "module:function" can reach.

    Args:
        reference: A stage's `run`.
        digests: Caches the digests of files that have not changed.
        root: Folder that holds the `tasks` package.
        modules: Modules that were read for another stage; extended. Most stages share most modules.

    Returns: {module: {definition: short digest}}, sorted by module, with the pseudo-definitions
        above. `code_digest` makes one digest of it.
    """
    modules = {} if modules is None else modules
    if not modules:
        digests.preload(f"code {FORM}:")
    waiting = [reference.partition(":")[0]]
    found: dict[str, Definitions] = {}
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        if module not in modules:
            modules[module] = _read(module, digests, root)
        if (read := modules[module]) is not None:
            found[module] = read.definitions
            waiting.extend(read.imports)
    return dict(sorted(found.items()))


def _read(module: str, digests: DigestCache, root: Path) -> ReadModule | None:
    path = None if _is_without_effect(module) else _file_of(module, root)
    if path is None:
        return None
    parse = partial(_parse, module=module, root=root)
    parsed = json.loads(digests.recall(f"code {FORM}:{module}", path, parse))
    if path.name == "__init__.py":
        parsed["definitions"] |= _data_files(path.parent, digests)
    return ReadModule(**parsed)


def code_digest(code: Mapping[str, Definitions]) -> list[str]:
    """What of a closure enters a key: one digest a module, sorted, without any module's name.

    Modules without code (an `__init__` that holds a docstring) are left out, so that a new folder
    changes nothing.
    """
    content = {module: content_digest(definitions) for module, definitions in code.items()}
    digests = []
    for module, definitions in code.items():
        imports = definitions.get(IMPORTS, "").split()
        if content[module] == content_digest({}) and not imports:
            continue
        names = [name.partition("@") for name in imports]
        edges = sorted(f"{name}@{content.get(target, '')}" for name, _, target in names)
        digests.append(_short("\n".join([content[module], *edges])))
    return sorted(digests)


def content_digest(definitions: Definitions) -> str:
    """Digest of a module's definitions, wherever the module lies and whatever it imports."""
    return _short(repr(sorted((k, v) for k, v in definitions.items() if k != IMPORTS)))


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
    base = f"{root}/{module.replace('.', '/')}"  # not pathlib: thousands of calls per plan
    for candidate in (f"{base}.py", f"{base}/__init__.py"):
        if os.path.isfile(candidate):  # noqa: PTH113
            return Path(candidate)
    return None


def _data_files(package: Path, digests: DigestCache) -> dict[str, str]:
    """Digests of a package's data files by "<name>"; those of a subpackage belong to that one."""
    found = {}
    for folder, subfolders, names in os.walk(package):
        subfolders[:] = [
            name
            for name in subfolders
            if name != "__pycache__" and not Path(folder, name, "__init__.py").is_file()
        ]
        for path in (Path(folder, name) for name in names):
            if path.suffix not in (".py", ".pyc") and not path.name.startswith("."):
                name = path.relative_to(package).as_posix()
                found[f"<{name}>"] = digests.digest(path)[:12]
    return found


def _parse(path: Path, module: str, root: Path) -> str:
    """Digest one file's definitions and list what it imports, as JSON."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    names = _Names(module, path.name == "__init__.py", root)
    names.collect(tree)
    tree = _Normalise(names).visit(tree)
    parts: dict[str, list[str]] = {}
    order: list[str] = []
    for node in tree.body:
        name = getattr(node, "name", None) or STATEMENTS
        parts.setdefault(name, []).append(_text(node))
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            order.append(name)
    definitions = {name: _short("\n".join(texts)) for name, texts in parts.items()}
    if order:
        definitions[ORDER] = _short("\n".join(order))
    if names.edges:
        definitions[IMPORTS] = " ".join(sorted(names.edges))
    imports = {*_parents(module), *filter(names.of_project, names.modules)}
    return json.dumps({"definitions": definitions, "imports": sorted(imports)})


def _text(value: object) -> str:
    """A syntax tree as text, the same in every version of Python: absent and empty fields, which
    differ between versions, are left out."""
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


class _Names:
    """The names that a file imports from this project.

    Attributes:
        modules: Modules that may be imported anywhere in the file; `from a import b` counts both a
            and a.b. So does a string that is the name of a module: a process is started with it.
        edges: "name=symbol@module" for each imported symbol, "#number@module" for each module.
    """

    def __init__(self, module: str, is_package: bool, root: Path) -> None:
        self._module, self._is_package, self._root = module, is_package, root
        self._bound: dict[str, str] = {}  # local name -> module that it is bound to
        self._numbers: dict[str, int] = {}
        self.modules: set[str] = set()
        self.edges: set[str] = set()

    def collect(self, tree: ast.Module) -> None:
        """Find all imports of a file before its definitions are normalized."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.modules.add(alias.name)
                    if alias.asname and _file_of(alias.name, self._root):
                        self._bound[alias.asname] = alias.name
            elif isinstance(node, ast.ImportFrom):
                base = self.base_of(node)
                self.modules.add(base)
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    self.modules.add(full)
                    if _file_of(full, self._root):
                        self._bound[alias.asname or alias.name] = full

    def base_of(self, node: ast.ImportFrom) -> str:
        """The absolute name of the module that `from ... import` names."""
        base = node.module or ""
        if not node.level:
            return base
        parts = self._module.split(".")
        kept = parts[: len(parts) - node.level + (1 if self._is_package else 0)]
        return ".".join([*kept, base] if base else kept)

    def of_project(self, module: str) -> bool:
        """Whether a module belongs to this project."""
        return module.partition(".")[0] in PACKAGES

    def symbol(self, module: str, alias: ast.alias) -> None:
        """Record a symbol imported from a module of this project."""
        self.edges.add(f"{alias.asname or alias.name}={alias.name}@{module}")

    def module_of(self, name: str) -> str | None:
        """The module that a local name is bound to, if any."""
        return self._bound.get(name)

    def placeholder(self, module: str) -> str:
        """The placeholder of a module in the normalized text: a number by order of first use."""
        number = self._numbers.setdefault(module, len(self._numbers))
        self.edges.add(f"#{number}@{module}")
        return f"#{number}"

    def in_text(self, text: str) -> str:
        """A string that names a module, or a function as "module:function", without that name.

        Only a bare module is followed: a process is started with it. A function named so is the
        `run` of a stage, in the `__init__` that each module of that stage has above it.
        """
        module, separator, rest = text.partition(":")
        if not self.of_project(module) or not _file_of(module, self._root):
            return text
        if not separator:
            self.modules.add(module)
        return f"{self.placeholder(module)}{separator}{rest}"


class _Normalise(ast.NodeTransformer):
    """Drop what cannot change behavior: docstrings, annotations that nothing reads, the order of
    imports and the names of modules."""

    def __init__(self, names: _Names) -> None:
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
        if not self._names.of_project(base):
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
        yield from sorted(run, key=_text)
        run = []
        yield statement
    yield from sorted(run, key=_text)


def _last_name(decorator: ast.expr) -> str:
    """`a.b.name(...)` -> "name"."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return getattr(called, "attr", getattr(called, "id", ""))


def _drop_docstring(body: list[ast.stmt]) -> None:
    """Remove a leading string expression, in place."""
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *_]:
            del body[0]
