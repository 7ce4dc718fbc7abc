"""Files of the project that a stage can reach: modules, and data files in their packages.

Every file that is not Python and lies in a package, or in a subfolder of it that is no package, is
digested by its bytes under its name inside that package (report templates). Reading such a file by
its path therefore needs no declaration that could be forgotten. Hidden files do not count: editors
leave them.
"""

import os
from pathlib import Path

from tasks.core.cache.digest_cache import DigestCache

PACKAGES = ("tasks",)
# not followed: the effect of the settings on a stage is the values in its key; the others shape
# messages, declare stages and locate files, and no output
WITHOUT_EFFECT = (
    "tasks.core.settings",
    "tasks.core.errors",
    "tasks.core.progress",
    "tasks.core.stage",
    "tasks.core.system.home",
)
_PREFIXES_WITHOUT_EFFECT = tuple(f"{name}." for name in WITHOUT_EFFECT)


def is_of_project(module: str) -> bool:
    """Whether a module belongs to this project."""
    return module.partition(".")[0] in PACKAGES


def has_no_effect(module: str) -> bool:
    """Whether a module, or a package that it is in, is listed in `WITHOUT_EFFECT`."""
    return f"{module}.".startswith(_PREFIXES_WITHOUT_EFFECT)


def parents_of(module: str) -> list[str]:
    """Packages whose `__init__` runs when `module` is imported."""
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def file_of(module: str, root: Path) -> Path | None:
    """The source file of a module of this project; None for any other module."""
    if not is_of_project(module):
        return None
    base = f"{root}/{module.replace('.', '/')}"  # not pathlib: thousands of calls per plan
    for candidate in (f"{base}.py", f"{base}/__init__.py"):
        if os.path.isfile(candidate):  # noqa: PTH113
            return Path(candidate)
    return None


def data_files(package: Path, digests: DigestCache) -> dict[str, str]:
    """Digests of a package's data files by "<name>"; those of a subpackage belong to that one."""
    found = {}
    for folder, subfolders, names in os.walk(package):
        subfolders[:] = [
            name
            for name in subfolders
            if name != "__pycache__" and not os.path.isfile(f"{folder}/{name}/__init__.py")  # noqa: PTH113
        ]
        for name in names:
            if not name.endswith((".py", ".pyc")) and not name.startswith("."):
                path = Path(folder, name)
                inner = path.relative_to(package).as_posix()
                found[f"<{inner}>"] = digests.digest(path)[:12]
    return found
