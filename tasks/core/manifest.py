"""What stands beside every artifact: its key with the unhashed parts, its files, what was counted
and what it cost.

`manifest.json` is written last; a folder without a whole one does not exist for the store.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.keys import Parts, canonical
from tasks.core.memo import Memo, sha256

NAME = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class File:
    """One file of an artifact, as it was published."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """An artifact's own account of itself.

    Attributes:
        parts: The unhashed parts of the key.
        outputs: Digest of each declared output; downstream keys rest on these.
        files: Relative POSIX path -> file.
        summary: The stage's `Summary` as a dict.
        seconds: Wall time of the stage's run.
        made: When, with what and by whom: created (ISO 8601, UTC), versions, commit, flow run,
            peak_rss_gib.
    """

    stage: str
    key: str
    parts: Parts
    outputs: Mapping[str, str]
    files: Mapping[str, File]
    summary: Mapping[str, Any]
    seconds: float
    made: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @classmethod
    def from_plain(cls, raw: Mapping[str, Any]) -> "Manifest":
        """A manifest from the plain dict that it was written as."""
        files = {name: File(**entry) for name, entry in raw["files"].items()}
        return cls(**{**raw, "files": files})

    def write(self, folder: Path) -> None:
        """Write manifest.json into `folder`, whole or not at all, and flush it to the disk."""
        temporary = folder / f".{NAME}"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / NAME)
        sync_folder(folder)


def read(folder: Path) -> Manifest | None:
    """The manifest of an artifact folder; None if it is absent, torn or of a newer version."""
    try:
        raw = json.loads((folder / NAME).read_bytes())
        if not isinstance(raw, dict) or raw["version"] > VERSION:
            return None
        return Manifest.from_plain(raw)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def why_unreadable(folder: Path) -> str:
    """Why `read` gives None for a folder, in words."""
    try:
        raw = json.loads((folder / NAME).read_bytes())
        version = raw["version"]
    except FileNotFoundError:
        return f"{NAME} is not there"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{NAME} is torn"
    if version > VERSION:
        return f"{NAME} has version {version}, this program reads up to {VERSION}"
    return f"{NAME} is not of this key"


def describe_files(folder: Path) -> dict[str, File]:
    """Every file below `folder`, hashed and flushed to the disk; manifest.json itself left out."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in (NAME, f".{NAME}"):
            continue
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        stat = path.stat()
        files[name] = File(stat.st_size, stat.st_mtime_ns, sha256(path))
    return files


def output_digests(names: tuple[str, ...], files: Mapping[str, File]) -> dict[str, str]:
    """Digest of each named output: the paths and contents of the files that belong to it.

    A file belongs to the output that its top entry is called after: `kept.parquet` and
    `kept/part-0.parquet` both to `kept`.
    """
    digests = {}
    for name in names:
        content = {path: file.sha256 for path, file in files.items() if entry_name(path) == name}
        if content:
            digests[name] = hashlib.sha256(canonical(content).encode()).hexdigest()
    return digests


def digest_of(entry: Path) -> str:
    """Digest of an output by its path in its artifact, as the manifest there has it; of a file or
    folder that lies in no artifact, of its content."""
    manifest = read(entry.parent)
    if manifest is not None and (known := manifest.outputs.get(entry_name(entry.name))):
        return known
    files = sorted(p for p in entry.rglob("*") if p.is_file()) if entry.is_dir() else [entry]
    content = {p.relative_to(entry.parent).as_posix(): sha256(p) for p in files}
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def entry_name(relative: str) -> str:
    """Name of the top entry that a relative path belongs to, without suffix."""
    return relative.partition("/")[0].partition(".")[0]


def damage(
    folder: Path, files: Mapping[str, File], memo: Memo, deep: bool = False
) -> tuple[str, str] | None:
    """What is wrong with an artifact's files, as ("missing" | "edited", file name); None if it is
    whole.

    Size and modification time are looked at; a file whose time moved is hashed and, if its content
    is the same, was only touched. `deep` hashes every file.
    """
    for name, file in files.items():
        path = folder / name
        try:
            stat = path.stat()
        except OSError:
            return "missing", name
        if stat.st_size != file.size:
            return "edited", name
        if deep and sha256(path) != file.sha256:
            return "edited", name
        if stat.st_mtime_ns != file.mtime_ns and memo.digest(path) != file.sha256:
            return "edited", name
    return None


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
