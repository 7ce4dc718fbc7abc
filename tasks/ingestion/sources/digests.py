"""Digests of the sources for the cache key of the stage: one per source, by content.

`finetune plan` calls this every time, so it only lists, stats and hashes, with the standard library
alone, and imports a module only for the kinds of sources that need it.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import PipelineError
from tasks.core.package_version import PYTHON, version
from tasks.core.system.hub_pins import pinned_commit
from tasks.ingestion.sources.file_listing import (
    code_paths,
    existing_folder,
    is_repository,
    list_code,
    list_data,
    walk,
)

if TYPE_CHECKING:
    from tasks.core.settings.config import View
    from tasks.core.settings.ingest import HuggingFaceSource, Source

DATA_SET = "a data set's folder"
TREE_KINDS = {"folder", "git"}
CODE_KINDS = TREE_KINDS | {"packages"}
MIN_ROWS = 3  # one each to train on, to validate and to test
SMALL_BYTES = 1 << 20  # larger files are not counted

Digest = Callable[[Path], str]


def source_digests(config: "View", digest_of: Digest) -> dict[str, str]:
    """Digest of each source's content by its name (of a data set on the hub and a git repository:
    its commit), and the versions of the libraries and parsers that read them.

    Raises:
        PipelineError: A source is not there, or all of them together have fewer than three rows.
    """
    settings = config.ingest.sources
    _check_enough(settings)
    digests = {
        name: _digest(source, digest_of)
        for name, source in zip(source_names(settings), settings, strict=True)
    }
    kinds = {source.kind for source in settings}
    if kinds & CODE_KINDS:
        parsers: tuple[str, ...] = (PYTHON,)  # installed packages are read as Python alone
        if kinds & TREE_KINDS:
            from tasks.core.languages.registry import PARSERS

            parsers = PARSERS
        digests |= {f"parser {name}": version(name) for name in parsers}
    if any(source.kind == "huggingface" for source in settings):
        digests["library datasets"] = version("datasets")
    return digests


def _check_enough(settings: "Iterable[Source]") -> None:
    """Report too little data where it is known without reading all of it: in JSONL files alone."""
    total = 0
    for source in settings:
        if source.kind != "files":
            return
        listing = list_data(source.path)
        for file in listing.files:
            lines = _few_lines(listing.root / file) if file.lower().endswith(".jsonl") else None
            if lines is None or total + lines >= MIN_ROWS:
                return
            total += lines
    if total:
        rows = "row" if total == 1 else "rows"
        raise PipelineError(
            f"too little data: {total} {rows} in all of `ingest.sources`; train, validation and "
            f"test need {MIN_ROWS} or more",
            f"Add at least {MIN_ROWS - total} to the files, or another source.",
        )


def few_files(settings: "Iterable[Source]") -> int | None:
    """Number of files of code in all sources, if they are too few to be split by file."""
    total = 0
    for source in settings:
        if source.kind != "folder":
            return None
        for _ in code_paths(source.path, source.include_tests, source.languages):
            if (total := total + 1) == MIN_ROWS:
                return None
    return total


def _few_lines(path: Path) -> int | None:
    """Lines of a small JSONL file that are not blank; None if it is large or something else."""
    try:
        if path.stat().st_size > SMALL_BYTES:
            return None
        content = path.read_bytes().lstrip(b"\xef\xbb\xbf \r\n\t")
    except OSError:
        return None
    is_lines = content.startswith(b"{") and content.count(b"\n}") == 0
    return sum(bool(line.strip()) for line in content.split(b"\n")) if is_lines else None


def source_names(settings: "Iterable[Source]") -> list[str]:
    """A unique name for each source: its own, or one derived from its path or kind."""
    names: list[str] = []
    for source in settings:
        base = source.name or _derived_name(source)
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def _derived_name(source: "Source") -> str:
    """A name derived from what a source points to."""
    if source.kind == "packages":
        return "packages"
    if source.kind == "huggingface" and source.hub_id:
        return source.hub_id.rpartition("/")[2]
    path = Path(source.path or "")
    # a folder's name may hold a version: psutil-7.1.0
    is_tree = source.kind in ("folder", "git")
    return (path.name.removesuffix(".git") if is_tree else path.stem) or source.kind


def hub_commit(source: "HuggingFaceSource") -> str:
    """The commit of a data set on the hub: from the settings, or pinned.

    Raises:
        PipelineError: None is pinned and the hub can't be reached.
    """
    instead = "name a local folder with `path`"
    setting = "`revision` of the source"
    return source.revision or pinned_commit(source.hub_id or "", "datasets", setting, instead)


def _digest(source: "Source", digest_of: Digest) -> str:
    total = hashlib.sha256()
    if source.kind == "git":
        from tasks.ingestion.sources.git import plumbing

        return plumbing.identity(*plumbing.resolve(source.path, source.revision))
    if source.kind == "huggingface" and source.path is None:
        return f"{source.hub_id}@{hub_commit(source)}"
    if source.kind == "huggingface":
        folder = existing_folder(source.path or "", DATA_SET)
        _add(total, folder, walk(folder, "", skip=()), digest_of)
    elif source.kind == "files":
        listing = list_data(source.path)
        _add(total, listing.root, listing.files, digest_of)
    elif source.kind == "folder":
        listing = list_code(source.path, source.include_tests, source.languages)
        total.update(f"{is_repository(listing.root, listing.files)}\n".encode())
        _add(total, listing.root, (*listing.files, *listing.licenses), digest_of)
    else:
        from tasks.ingestion.sources.packages import find_package

        for name in source.names:
            package = find_package(name, source.include_tests)
            total.update(f"{name}\n{package.version}\n{package.metadata}\n".encode())
            _add(total, package.root, (*package.files, *package.license_files), digest_of)
    return total.hexdigest()


def _add(total: "hashlib._Hash", root: Path, files: Iterable[str], digest_of: Digest) -> None:
    base = str(root)
    for name in files:
        try:
            digest = digest_of(Path(f"{base}/{name}"))
        except OSError as error:
            digest = f"unreadable: {error.strerror}"
        total.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
