"""Names that a module imports from this project, with the modules that they come from.

Module names do not enter a digest: an import is recorded as "name=symbol@module" instead, and the
text of the module contains a placeholder.
"""

import ast
from pathlib import Path

from tasks.core.cache.code.project_files import file_of, is_of_project


class ImportedNames:
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
                    if alias.asname and file_of(alias.name, self._root):
                        self._bound[alias.asname] = alias.name
            elif isinstance(node, ast.ImportFrom):
                base = self.base_of(node)
                self.modules.add(base)
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    self.modules.add(full)
                    if file_of(full, self._root):
                        self._bound[alias.asname or alias.name] = full

    def base_of(self, node: ast.ImportFrom) -> str:
        """The absolute name of the module that `from ... import` names."""
        base = node.module or ""
        if not node.level:
            return base
        parts = self._module.split(".")
        kept = parts[: len(parts) - node.level + (1 if self._is_package else 0)]
        return ".".join([*kept, base] if base else kept)

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
        if not is_of_project(module) or not file_of(module, self._root):
            return text
        if not separator:
            self.modules.add(module)
        return f"{self.placeholder(module)}{separator}{rest}"
