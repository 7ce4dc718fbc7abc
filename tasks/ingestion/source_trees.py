"""Packages and source folders -> their Python files, each with the project, version and licence
that its rows inherit."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.ingestion.code_rows import CodeFile
from tasks.ingestion.file_listing import Listing, walk
from tasks.ingestion.licences import from_metadata, from_text
from tasks.ingestion.packages import STANDARD_LIBRARY, Package, is_licence_file

LicenceOf = dict[str, tuple[str, str]]


def package_files(package: Package, source: str) -> Iterator[CodeFile]:
    """Files of a distribution; each top module of the standard library is a project of its own."""
    is_standard = package.name == STANDARD_LIBRARY
    if is_standard:
        licence, evidence = "PSF-2.0", f"standard library of Python {package.version}"
    else:
        texts = [
            (name.rpartition("/")[2], _read(package.root / name)) for name in package.licence_files
        ]
        licence, evidence = from_metadata(package.metadata, texts)
    for path in package.files:
        top = path.partition("/")[0].removesuffix(".py")
        project = f"{STANDARD_LIBRARY}/{top}" if is_standard else package.name
        yield CodeFile(str(package.root), path, source, project, package.version, licence, evidence)


def folder_files(listing: Listing, source: str, stated: str) -> Iterator[CodeFile]:
    """Files of a source tree; each top folder (or file) is a project of its own.

    Args:
        stated: SPDX licence by the user's statement, for files without a LICENSE file above them.
    """
    licences = _folder_licences(listing.root)
    for path in listing.files:
        top = path.partition("/")[0].removesuffix(".py")
        licence, evidence = nearest(path, licences)
        if not licence and stated:
            licence, evidence = stated, "stated in the settings"
        yield CodeFile(str(listing.root), path, source, f"{source}/{top}", "", licence, evidence)


def _folder_licences(root: Path) -> LicenceOf:
    """{folder: (licence, evidence)} for each folder that holds LICENSE files; "" is the root."""
    found: dict[str, dict[str, str]] = {}
    for path in walk(root, ""):
        if is_licence_file(path) and not path.endswith(".py"):
            found.setdefault(path.rpartition("/")[0], {})[path] = from_text(_read(root / path))
    return {folder: together(texts) for folder, texts in found.items()}


def together(licences: dict[str, str]) -> tuple[str, str]:
    """One expression for all LICENSE files of a folder; unknown if one of them is."""
    names = ", ".join(licences)
    if all(licences.values()):
        return " AND ".join(dict.fromkeys(licences.values())), f"text of {names}"
    return "", f"{names}: not a licence text that is known"


def nearest(path: str, licences: LicenceOf) -> tuple[str, str]:
    """(licence, evidence) of the nearest folder above a path that holds LICENSE files."""
    for folder in _above(path):
        if folder in licences:
            return licences[folder]
    return "", "no LICENSE file above it"


def _above(path: str) -> Iterable[str]:
    """Folders that hold a path, the nearest first, the root ("") last."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
