"""Source files of an installed distribution, found from its metadata: nothing is imported or
executed."""

import csv
import difflib
import platform
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import PipelineError
from tasks.core.languages.python.definition import PYTHON
from tasks.ingestion.licenses import is_license_file
from tasks.ingestion.sources.file_listing import walk

STANDARD_LIBRARY = "python"
BROKEN_ON_PURPOSE = ("lib2to3/",)  # its test data is invalid Python


class Package(NamedTuple):
    """Files of one distribution.

    Attributes:
        name: As the settings call it.
        root: The folder that `files` and `license_files` are relative to.
        files: Source files, sorted.
        license_files: LICENSE files of the distribution, sorted.
        metadata: Text of METADATA; "" for the standard library.
    """

    name: str
    version: str
    root: Path
    files: tuple[str, ...]
    license_files: tuple[str, ...] = ()
    metadata: str = ""


def find_package(name: str, include_tests: bool) -> Package:
    """Find an installed distribution.

    Raises:
        PipelineError: It is not installed, or no source file of it can be found.
    """
    if name == STANDARD_LIBRARY:
        return _standard_library(include_tests)
    try:
        found = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        raise _unknown(name) from None
    text = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
    root, files = _recorded(found)
    if not any(f.endswith(PYTHON.extensions) for f in files):
        root, files = _located(name, found)
    code = sorted(
        f
        for f in files
        if f.endswith(PYTHON.extensions) and (include_tests or not PYTHON.is_test(f))
    )
    if not code:
        raise PipelineError(
            f"package {name!r} is installed, but has no Python file ({len(files)} files listed)",
            "If it is an editable install, add its source tree as a source of kind `folder`.",
        )
    licenses = sorted(f for f in files if ".dist-info/" in f and is_license_file(f))
    return Package(name, found.version, root, tuple(code), tuple(licenses), text)


def _standard_library(include_tests: bool) -> Package:
    root = Path(sysconfig.get_path("stdlib"))
    files = [f for f in walk(root, PYTHON.extensions) if include_tests or not PYTHON.is_test(f)]
    files = [f for f in files if not f.startswith(BROKEN_ON_PURPOSE)]
    return Package(STANDARD_LIBRARY, platform.python_version(), root, tuple(files))


def _recorded(found: metadata.Distribution) -> tuple[Path, list[str]]:
    """Files in the distribution's RECORD; those outside its folder (scripts) are left out."""
    lines = (found.read_text("RECORD") or "").splitlines()
    names = [row[0] for row in csv.reader(lines) if row]
    return Path(str(found.locate_file(""))), [n for n in names if not n.startswith(("..", "/"))]


def _located(name: str, found: metadata.Distribution) -> tuple[Path, list[str]]:
    """Files of the top-level modules on the import path, for a distribution without a useful
    RECORD."""
    tops = (found.read_text("top_level.txt") or name.replace("-", "_")).split()
    for top in tops:
        spec = find_spec(top)
        if spec and spec.submodule_search_locations:
            package = Path(next(iter(spec.submodule_search_locations)))
            return package.parent, [f"{package.name}/{f}" for f in walk(package, PYTHON.extensions)]
        if spec and spec.origin and spec.origin.endswith(PYTHON.extensions):
            return Path(spec.origin).parent, [Path(spec.origin).name]
    return Path(), []


def _unknown(name: str) -> PipelineError:
    installed = {d.name for d in metadata.distributions() if d.name} | {STANDARD_LIBRARY}
    near = difflib.get_close_matches(name, installed, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return PipelineError(
        f"ingest source names package {name!r}, which is not installed",
        f'{hint}Name an installed distribution; "python" is the standard library.',
    )
