"""Definitions of a module, each with a digest of its normalized syntax tree."""

import ast
import hashlib
import json
from pathlib import Path

from tasks.core.cache.code.imported_names import ImportedNames
from tasks.core.cache.code.normalize import Normalize, text_of
from tasks.core.cache.code.project_files import is_of_project, parents_of

# pseudo-definitions of a module
STATEMENTS = "<module>"  # statements outside functions and classes
IMPORTS = "<imports>"  # "name=symbol@module" for each name imported from this project
ORDER = "<order>"  # names of the definitions in their order


def parse_file(path: Path, module: str, root: Path) -> str:
    """Digest one file's definitions and list what it imports, as JSON."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    names = ImportedNames(module, path.name == "__init__.py", root)
    names.collect(tree)
    tree = Normalize(names).visit(tree)
    parts: dict[str, list[str]] = {}
    order: list[str] = []
    for node in tree.body:
        name = getattr(node, "name", None) or STATEMENTS
        parts.setdefault(name, []).append(text_of(node))
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            order.append(name)
    definitions = {name: short_digest("\n".join(texts)) for name, texts in parts.items()}
    if order:
        definitions[ORDER] = short_digest("\n".join(order))
    if names.edges:
        definitions[IMPORTS] = " ".join(sorted(names.edges))
    imports = {*parents_of(module), *filter(is_of_project, names.modules)}
    return json.dumps({"definitions": definitions, "imports": sorted(imports)})


def short_digest(text: str) -> str:
    """The first 12 hex digits of a text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
