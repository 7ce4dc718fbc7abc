"""Versions of installed packages, as they enter keys."""

import platform
from functools import lru_cache
from importlib import metadata

PYTHON = "python"


@lru_cache
def version(package: str) -> str:
    """Installed version of a distribution, "absent" if there is none; of Python only major and
    minor, since a patch release changes no output."""
    if package == PYTHON:
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
