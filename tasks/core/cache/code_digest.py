"""Code digest of a stage: changes when logic that the stage can reach changes, and only then.

From the module of the stage's `run`, imports inside this project are followed statically: imports
inside functions, too, and modules named by a string, as for `python -m`. Every module is digested
definition by definition (`code/definitions.py`) as a syntax tree without what has no effect
(`code/normalize.py`), so formatting never retrains a model and a changed helper or constant always
does. A whole module counts even if a stage calls only part of it: that errs on the side of running
again. Data files beside the modules count, too (`code/project_files.py`).

Two rules make the digest follow behavior and not the layout of the files:

- The order of definitions counts: a decorator may register what it decorates, and a default is
  evaluated where it stands. The order of imports does not.
- Module names do not count. Each import is recorded beside its module as "name=symbol@module"
  (`code/imported_names.py`); `code_digest` replaces the module by the digest of its content. Moving
  or renaming a module therefore keeps every key, and importing a function of the same name from
  elsewhere does not.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tasks.core.cache.code.definitions import IMPORTS, parse_file, short_digest
from tasks.core.cache.code.project_files import data_files, file_of, has_no_effect
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.system.home import REPOSITORY

FORM = 4  # of the cached value of a file; raise it when `parse_file` changes

Definitions = Mapping[str, str]


class ReadModule(NamedTuple):
    """What a file defines, and the modules of this project that may run when it is imported."""

    definitions: dict[str, str]
    imports: list[str]
    is_package: bool


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
        of `code/definitions.py`. `code_digest` makes one digest of it.
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
            # `from a import b` names a.b as well, most often no module: none, if a is a single file
            parent = modules.get(module.rpartition(".")[0])
            is_name = parent is not None and not parent.is_package
            modules[module] = None if is_name else _read(module, digests, root)
        if (read := modules[module]) is not None:
            found[module] = read.definitions
            waiting.extend(reversed(read.imports))  # a before a.b
    return dict(sorted(found.items()))


def _read(module: str, digests: DigestCache, root: Path) -> ReadModule | None:
    path = None if has_no_effect(module) else file_of(module, root)
    if path is None:
        return None
    parse = partial(parse_file, module=module, root=root)
    parsed = json.loads(digests.recall(f"code {FORM}:{module}", path, parse))
    is_package = path.name == "__init__.py"
    if is_package:
        parsed["definitions"] |= data_files(path.parent, digests)
    return ReadModule(**parsed, is_package=is_package)


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
        digests.append(short_digest("\n".join([content[module], *edges])))
    return sorted(digests)


def content_digest(definitions: Definitions) -> str:
    """Digest of a module's definitions, wherever the module lies and whatever it imports."""
    return short_digest(repr(sorted((k, v) for k, v in definitions.items() if k != IMPORTS)))
