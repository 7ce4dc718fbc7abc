"""Installed packages that a program may import: their folders and those of what they require."""

import importlib.util
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from tasks.core.errors import PipelineError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def folders(names: Iterable[str]) -> dict[str, Path]:
    """Files and folders to make importable, by the names that imports need.

    Args:
        names: Of distributions ("numpy"), or of packages to import where no distribution has the
            name (a package that is installed in editable mode).

    Raises:
        PipelineError: A package is not installed.
    """
    found: dict[str, Path] = {}
    left, seen = list(names), set[str]()
    asked = set(left)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        entries = _of_distribution(name) or _of_import(name)
        if not entries and name in asked:
            raise PipelineError(
                f"package {name} is not installed", f"Install it with: pip install {name}"
            )
        found |= entries
        left += _requirements(name)
    return dict(sorted(found.items()))


def versions(names: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution and of all that it requires; "" unknown."""
    found: dict[str, str] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found[name] = _version(name)
            left += [other for other in _requirements(name) if _version(other)]
    return dict(sorted(found.items()))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _of_distribution(name: str) -> dict[str, Path]:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return {}
    tops = {file.parts[0] for file in distribution.files or () if file.parts}
    kept = (top for top in tops if top not in ("..", "__pycache__") and not top.endswith(".pth"))
    entries = {top: Path(str(distribution.locate_file(top))) for top in kept}
    importable = any(not top.endswith((".dist-info", ".egg-info")) for top in entries)
    return {top: path for top, path in entries.items() if path.exists()} if importable else {}


def _of_import(name: str) -> dict[str, Path]:
    if not name.isidentifier() or (spec := importlib.util.find_spec(name)) is None:
        return {}
    places = list(spec.submodule_search_locations or ())
    return {name: Path(places[0])} if places else {}


def _requirements(name: str) -> list[str]:
    try:
        required = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    needed = (text.partition(";") for text in required)
    # other markers are about the platform: what they exclude is not installed
    plain = (head for head, _, marker in needed if "extra" not in marker)
    return [match.group() for head in plain if (match := _NAME.match(head.strip()))]
