"""Packages and source folders -> their code files, each with the project, version and license that
its rows inherit."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.core.languages.registry import EXTENSIONS, headers_of, without_extension
from tasks.ingestion.code_file import CodeFile
from tasks.ingestion.licenses import TEXTS_FOLDER, is_license_file, license_of_texts
from tasks.ingestion.sources.file_listing import Listing, is_repository
from tasks.ingestion.sources.package_license import license_of_package
from tasks.ingestion.sources.packages import STANDARD_LIBRARY, Package


class TreeLicenses:
    """Licenses of the files of a source tree, by the nearest folder with LICENSE files."""

    def __init__(self, texts: Mapping[str, str], stated: str) -> None:
        """Recognize the licenses of a tree.

        Args:
            texts: {path: text} of its LICENSE files.
            stated: SPDX license that the user states, for files without a known one.
        """
        by_folder: dict[str, dict[str, str]] = {}
        # first the files in the folders themselves: one without any has those in LICENSES
        for path in sorted(texts, key=_is_in_texts_folder):
            found = by_folder.setdefault(_licensed_folder(path), {})
            if not _is_in_texts_folder(path) or all(map(_is_in_texts_folder, found)):
                found[path] = texts[path]
        self._found = {folder: license_of_texts(files) for folder, files in by_folder.items()}
        self._stated = stated
        self._of_folder: dict[str, tuple[str, str]] = {}

    def of(self, path: str) -> tuple[str, str]:
        """(license, evidence) of a file."""
        folder = path.rpartition("/")[0]
        if folder not in self._of_folder:
            self._of_folder[folder] = self._nearest(path)
        return self._of_folder[folder]

    def _nearest(self, path: str) -> tuple[str, str]:
        found = next((self._found[f] for f in _parents(path) if f in self._found), None)
        if self._stated and not (found and found[0]):
            return self._stated, "stated in the settings"
        return found or ("", "no LICENSE file above it")


def _licensed_folder(path: str) -> str:
    """The folder that a LICENSE file holds for: its own; for one in the metadata of an unpacked
    wheel, the folder of the wheel; for one in LICENSES, the folder around it."""
    folders = path.split("/")[:-1]
    if _is_in_texts_folder(path):
        return "/".join(folders[:-1])
    for depth, name in enumerate(folders):
        if name.endswith((".dist-info", ".egg-info")):
            return "/".join(folders[:depth])
    return "/".join(folders)


def _is_in_texts_folder(path: str) -> bool:
    return path.split("/")[-2:-1] == [TEXTS_FOLDER]


def _parents(path: str) -> Iterator[str]:
    """Folders that contain a path, the nearest first, the root ("") last."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def is_license_text(path: str) -> bool:
    """Whether a file of a source tree holds the license of its folder."""
    return is_license_file(path) and not path.endswith(EXTENSIONS)


def project_of(source: str, path: str, group: str) -> str:
    """Project of a file of a source tree. It ends in "/": it is a place, and no name that the
    project has given itself.

    Args:
        source: Name of the source.
        path: The file, relative to the source.
        group: "source", "top", "folder" or "file": what one project is.
    """
    place = "" if group == "source" else path
    if group == "top":
        place = without_extension(path.partition("/")[0])
    elif group == "folder":
        place = path.rpartition("/")[0]
    return f"{source}/{place}".rstrip("/") + "/"


def project_of_module(path: str) -> str:
    """Project of a file of the standard library: each top module is one."""
    return f"{STANDARD_LIBRARY}/{without_extension(path.partition('/')[0])}"


def package_files(package: Package, source: str, group: str | None = None) -> Iterator[CodeFile]:
    """Files of a distribution.

    Args:
        package: The distribution.
        source: Name of the source.
        group: See `project_of`; None: the distribution is a project, and each top module of the
            standard library.
    """
    is_standard = package.name == STANDARD_LIBRARY
    if is_standard:
        found = ("PSF-2.0", f"standard library of Python {package.version}")
    else:
        texts = {n.rpartition("/")[2]: _read(package.root / n) for n in package.license_files}
        found = license_of_package(package.metadata, texts)
    for path in package.files:
        project = project_of_module(path) if is_standard else package.name
        if group:
            project = project_of(source, path, group)
        yield CodeFile(str(package.root), path, source, project, package.version, *found)


def folder_files(
    listing: Listing, source: str, stated: str, group: str | None = None
) -> Iterator[CodeFile]:
    """Files of a source folder.

    Args:
        listing: Of the folder.
        source: Its name.
        stated: SPDX license that the user states, for files without a known one.
        group: See `project_of`; None: by `is_repository`.
    """
    root = listing.root
    group = group or ("source" if is_repository(root, listing.files) else "top")
    texts = {path: _read(root / path) for path in listing.licenses if is_license_text(path)}
    licenses, headers = TreeLicenses(texts, stated), headers_of(listing.files)
    shown = str(root)
    for path in listing.files:
        project = project_of(source, path, group)
        yield CodeFile(shown, path, source, project, "", *licenses.of(path), headers=headers)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
