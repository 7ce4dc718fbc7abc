"""What the stage reads from outside the store, keyed by content: one digest a source.

Only lists, stats and hashes; the standard library alone, because `finetune plan` calls it every
time.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.cache.cache_key import version
from tasks.core.errors import PipelineError
from tasks.core.system.home import home, resolve_path
from tasks.core.system.hub_pins import pinned_commit
from tasks.ingestion.file_listing import list_code, list_data, walk
from tasks.ingestion.git import plumbing
from tasks.ingestion.packages import find_package, is_licence_file

if TYPE_CHECKING:
    from tasks.core.settings.config import View
    from tasks.core.settings.ingest import HuggingFaceSource, Source

CODE = ("packages", "folder", "git")

Digest = Callable[[Path], str]


def sources(config: "View", digest_of: Digest) -> dict[str, str]:
    """Digest of each source's content by its name (of a data set on the hub and a git repository:
    its commit), and the versions of what reads them: Python parses code.

    Raises:
        PipelineError: A source is not there.
    """
    settings = config.ingest.sources
    digests = {
        name: _digest(source, digest_of)
        for name, source in zip(source_names(settings), settings, strict=True)
    }
    if any(source.kind in CODE for source in settings):
        digests["python grammar"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    if any(source.kind == "huggingface" for source in settings):
        digests["library datasets"] = version("datasets")
    return digests


def source_names(settings: "Iterable[Source]") -> list[str]:
    """A name for each source, unique: its own, or one made from its path or kind."""
    names: list[str] = []
    for source in settings:
        base = source.name or _given_name(source)
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def _given_name(source: "Source") -> str:
    """A name made from what a source points to."""
    if source.kind == "packages":
        return "packages"
    if source.kind == "huggingface" and source.hub_id:
        return source.hub_id.rpartition("/")[2]
    return Path(source.path or "").stem or source.kind


def hub_commit(source: "HuggingFaceSource") -> str:
    """The commit of a data set on the hub: of the settings, or pinned.

    Raises:
        PipelineError: None is pinned and the hub can't be asked.
    """
    instead = "name a local folder with `path`"
    setting = "`revision` of the source"
    return source.revision or pinned_commit(source.hub_id or "", "datasets", setting, instead)


def data_set_folder(path: str) -> Path:
    """The folder of a local data set.

    Raises:
        PipelineError: It is not there.
    """
    folder = resolve_path(path)
    if not folder.is_dir():
        raise PipelineError(
            f"ingest source {path!r} is not a folder (looked at {folder})",
            f"Point its `path` to a data set's folder; a relative path starts at {home()}.",
        )
    return folder


def _digest(source: "Source", digest_of: Digest) -> str:
    total = hashlib.sha256()
    if source.kind == "git":
        return plumbing.resolve(source.path, source.revision)[1]
    if source.kind == "huggingface" and source.path is None:
        return f"{source.hub_id}@{hub_commit(source)}"
    if source.kind == "huggingface":
        folder = data_set_folder(source.path or "")
        _add(total, folder, walk(folder, "", skip=()), digest_of)
    elif source.kind == "files":
        listing = list_data(source.path)
        _add(total, listing.root, listing.files, digest_of)
    elif source.kind == "folder":
        listing = list_code(source.path, source.include_tests)
        licences = [f for f in walk(listing.root, "") if is_licence_file(f)]
        _add(total, listing.root, (*listing.files, *licences), digest_of)
    else:
        for name in source.names:
            package = find_package(name, source.include_tests)
            total.update(f"{name}\n{package.version}\n{package.metadata}\n".encode())
            _add(total, package.root, (*package.files, *package.licence_files), digest_of)
    return total.hexdigest()


def _add(total: "hashlib._Hash", root: Path, files: Iterable[str], digest_of: Digest) -> None:
    base = str(root)
    for name in files:
        try:
            digest = digest_of(Path(f"{base}/{name}"))
        except OSError as error:
            digest = f"unreadable: {error.strerror}"
        total.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
