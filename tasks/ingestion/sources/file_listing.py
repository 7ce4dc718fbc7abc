"""Lists the files of a source: a file, a folder (all levels) or a glob; sorted, as paths relative
to a root.

Links to folders are not followed, so a loop of links ends. The registries are imported inside
functions: a plan with data files alone needs no language, one with code alone no file format.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from glob import has_magic
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.system.home import home, resolve_path

UNPACK = "Unpack the archive and point `path` to the files in it."
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
HEAD_BYTES = 2000
NOT_SOURCE = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})

# in the root folder of a project, and not in a folder of projects
PROJECT_FILES = frozenset(
    {
        *(".git", "pyproject.toml", "setup.py", "setup.cfg", "PKG-INFO", "package.json"),
        *("Cargo.toml", "go.mod", "pom.xml", "build.gradle", "CMakeLists.txt", "composer.json"),
        *("Gemfile", "tsconfig.json", "requirements.txt"),
    }
)


class Listing(NamedTuple):
    """Files of one source.

    Attributes:
        root: Folder that `files` are relative to.
        files: Relative paths with forward slashes, sorted.
        other_files: Number of files of another format.
        left_out: Of code: number of files that are not read, by reason.
        licenses: Of code: paths of LICENSE files.
    """

    root: Path
    files: tuple[str, ...]
    other_files: int = 0
    left_out: Mapping[str, int] = {}
    licenses: tuple[str, ...] = ()


def list_data(path: str) -> Listing:
    """Instruction files that a path of the settings names.

    Raises:
        PipelineError: Nothing is there, or nothing of a known format.
    """
    from tasks.ingestion.formats.files.compression import ENDINGS
    from tasks.ingestion.formats.files.registry import (
        EXTENSIONS,
        PACKED_EXTENSIONS,
        archive_of,
        is_data,
    )

    full = resolve_path(path)
    if full.is_dir():
        root, found = full, walk(full, "")
    elif full.is_file():
        root, found = full.parent, [full.name]
    else:
        root, found = _expand(path)
    files = tuple(p for p in found if p.lower().endswith((*EXTENSIONS, *PACKED_EXTENSIONS)))
    if not files and full.is_file() and is_data(full):
        files = (full.name,)
    if not files:
        archive = archive_of(full) if full.is_file() else ""
        if full.suffix.lower() in SPREADSHEETS:
            raise PipelineError(
                f"ingest source {path!r} is a spreadsheet",
                "Export the sheet as CSV and point `path` to that file.",
            )
        if archive:
            raise PipelineError(f"ingest source {path!r} is {archive}", UNPACK)
        reason = "holds no data file" if found or full.exists() else "does not exist"
        raise PipelineError(
            f"ingest source {path!r} {reason} (full path: {full})",
            f"Point its `path` to a file, folder or glob of {', '.join(EXTENSIONS)}, "
            f"also compressed ({', '.join(ENDINGS)}); a relative path starts at {home()}.",
        )
    return Listing(root, files, len(found) - len(files))


def _expand(pattern: str) -> tuple[Path, list[str]]:
    """The folder before the first wildcard, and the files below it that match, sorted."""
    parts = Path(pattern).parts
    plain = len(list(takewhile(lambda part: not has_magic(part), parts)))
    root = resolve_path(str(Path(*parts[:plain])))
    if plain == len(parts) or not root.is_dir():
        return root, []
    found = root.glob(str(Path(*parts[plain:])))
    return root, sorted(p.relative_to(root).as_posix() for p in found if p.is_file())


def existing_folder(path: str, wanted: str) -> Path:
    """The folder that a path of the settings names.

    Args:
        path: Of a source.
        wanted: What the folder should be, for the error.

    Raises:
        PipelineError: It is not there.
    """
    folder = resolve_path(path)
    if not folder.is_dir():
        raise PipelineError(
            f"ingest source {path!r} is not a folder (full path: {folder})",
            f"Point its `path` to {wanted}; a relative path starts at {home()}.",
        )
    return folder


def list_code(path: str, include_tests: bool, languages: Sequence[str] = ()) -> Listing:
    """Source files of a folder.

    Raises:
        PipelineError: The folder is not there or holds no source file.
    """
    from tasks.core.languages.registry import titles
    from tasks.ingestion.licenses import is_license_file
    from tasks.ingestion.sources.code_selection import CodeSelection

    root = existing_folder(path, "a folder of source code")
    selection = CodeSelection(include_tests, languages)
    skipped: list[str] = []
    found = walk(root, "", skipped=skipped)
    files = tuple(selection.chosen(found, lambda name: head_of(root / name)))
    if skipped:
        selection.left_out["folders of installed packages"] = len(skipped)
    if not files:
        raise PipelineError(
            f"ingest source {path!r} holds no source code outside tests "
            f"({selection.reasons() or 'it is empty'}; known: {titles(languages)})",
            selection.remedy(),
        )
    licenses = tuple(filter(is_license_file, found))
    return Listing(root, files, left_out=selection.left_out, licenses=licenses)


def code_paths(path: str, include_tests: bool, languages: Sequence[str] = ()) -> Iterator[str]:
    """The files of `list_code`, one after another: a caller that needs only some stops early."""
    from tasks.ingestion.sources.code_selection import CodeSelection

    root = existing_folder(path, "a folder of source code")
    selection = CodeSelection(include_tests, languages)
    return (f for f in walk(root, "") if selection.takes(f, lambda name: head_of(root / name)))


def head_of(path: Path) -> bytes:
    """The beginning of a file; empty if it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def is_repository(root: Path, files: Iterable[str]) -> bool:
    """Whether a folder is one project: it holds code itself, or a file that only the root of a
    project has. Any other folder holds projects, one in each of its top folders."""
    if any("/" not in path for path in files):
        return True
    from tasks.ingestion.licenses import is_license_file

    names = [entry.name for entry in root.iterdir()]
    return any(
        name in PROJECT_FILES or name.endswith(".dist-info") or is_license_file(name)
        for name in names
    )


def walk(
    root: Path,
    extensions: str | tuple[str, ...],
    skip: Collection[str] = NOT_SOURCE,
    skipped: list[str] | None = None,
) -> list[str]:
    """Relative paths of the files below `root` with one of the extensions ("": all), sorted.

    Hidden files and folders, virtual environments and folders named in `skip` are left out; the
    last two are added to `skipped`. The artifacts of runs are left out, too: an installed program
    has them in the folder in which it is started.
    """
    skipped = [] if skipped is None else skipped
    artifacts = home() / "artifacts"
    found: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(f"{root}/{folder}"))
        except OSError as error:
            say(f"folder {folder or root} can't be listed and is left out: {error.strerror}")
            continue
        if folder and any(entry.name == "pyvenv.cfg" for entry in entries):
            skipped.append(folder)  # a virtual environment
            continue
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if name == artifacts.name and Path(entry.path) == artifacts:
                    continue
                (skipped if name in skip else waiting).append(f"{folder}{name}/")
            elif name.endswith(extensions) and _is_file(entry):
                found.append(folder + name)
    return sorted(found)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a file, or a broken link, which becomes a ledger entry."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry).exists())
    except OSError:
        return True
