"""Versions of installed packages, as they enter keys."""

import platform
import re
from functools import lru_cache
from importlib import metadata

PYTHON = "python"
VERSION = re.compile(r"^Version: *(\S+)$", re.MULTILINE)


@lru_cache
def version(package: str) -> str:
    """Installed version of a distribution, "absent" if there is none; of Python only major and
    minor, since a patch release changes no output."""
    if package == PYTHON:
        return ".".join(platform.python_version_tuple()[:2])
    try:
        # `metadata.version` parses all headers as an e-mail; METADATA begins with these
        text = metadata.distribution(package).read_text("METADATA") or ""
        found = VERSION.search(text)
        return found[1] if found else metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
