"""What the stage reads from outside the store, keyed by content: one digest a source.

Only lists, stats and hashes; the standard library alone, because `finetune plan` calls it every
time.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.ingestion.listing import list_code, list_data, walk
from tasks.ingestion.packages import find_package, is_licence_file

if TYPE_CHECKING:
    from tasks.core.config import View
    from tasks.core.settings.ingest import Source

Digest = Callable[[Path], str]


def sources(config: "View", digest_of: Digest) -> dict[str, str]:
    """Digest of each source's content by its name, and of the Python that parses code.

    Raises:
        PipelineError: A source is not there.
    """
    settings = config.ingest.sources
    digests = {
        name: _digest(source, digest_of)
        for name, source in zip(source_names(settings), settings, strict=True)
    }
    if any(source.kind != "files" for source in settings):
        digests["python grammar"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    return digests


def source_names(settings: "Iterable[Source]") -> list[str]:
    """A name for each source, unique: its own, or one made from its path or kind."""
    names: list[str] = []
    for source in settings:
        base = source.name or (
            "packages" if source.kind == "packages" else Path(source.path).stem or source.kind
        )
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def _digest(source: "Source", digest_of: Digest) -> str:
    total = hashlib.sha256()
    if source.kind == "files":
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
