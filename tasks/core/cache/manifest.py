"""Manifest of an artifact: its key with the unhashed parts, its files, counts and costs.

`manifest.json` is written last; for the store, a folder without a complete one does not exist.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.cache.cache_key import Parts, canonical, key_of
from tasks.core.cache.digest_cache import DigestCache, sha256
from tasks.core.system.atomic_write import flush, write_text

NAME = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class File:
    """One file of an artifact, as it was published."""

    size: int
    mtime_ns: int
    sha256: str
    ctime_ns: int | None = None  # manifests of earlier versions lack it


@dataclass(frozen=True)
class Manifest:
    """The manifest of an artifact.

    Attributes:
        parts: The unhashed parts of the key.
        outputs: Digest of each declared output; these enter the keys of later stages.
        files: Relative POSIX path -> file.
        summary: The stage's `Summary` as a dict.
        seconds: Wall time of the stage's run.
        made: Provenance: created (ISO 8601, UTC), versions, commit, flow run, peak_rss_gib.
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
        """The manifest from its JSON form."""
        files = {name: File(**entry) for name, entry in raw["files"].items()}
        return cls(**{**raw, "files": files})

    def write(self, folder: Path) -> None:
        """Write manifest.json into `folder` atomically and flush it to the disk."""
        write_text(folder / NAME, json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True))


def read(folder: Path) -> Manifest | None:
    """The manifest of an artifact folder; None if it is absent, damaged or of a newer version."""
    try:
        raw = json.loads((folder / NAME).read_bytes())
        if raw["version"] > VERSION or not _is_shaped(raw):
            return None
        return Manifest.from_plain(raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_shaped(raw: Mapping[str, Any]) -> bool:
    """Whether the groups of a manifest are mappings: a user may have edited it."""
    parts = raw["parts"]
    groups = [raw["outputs"], raw["summary"], raw["made"], parts, *parts.get("code", {}).values()]
    groups += [parts.get(name, {}) for name in ("config", "code", "sources", "inputs", "env")]
    return all(isinstance(group, dict) for group in groups)


def why_unreadable(folder: Path) -> str:
    """Why the manifest of a folder cannot be used."""
    try:
        raw = json.loads((folder / NAME).read_bytes())
        version = raw["version"]
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{NAME} is damaged"
    if version > VERSION:
        return f"{NAME} has version {version}, this program reads up to {VERSION}"
    return f"{NAME} belongs to another key, or was edited"


def is_true(manifest: Manifest, folder: Path) -> bool:
    """Whether a manifest belongs to its folder and is consistent: its key is that of its parts,
    its outputs are those of its files."""
    digests = output_digests(tuple(manifest.outputs), manifest.files)
    return (
        folder.name == manifest.key[: len(folder.name)]
        and folder.parent.name == manifest.stage
        and manifest.key == key_of(manifest.parts)
        and manifest.outputs == digests
    )


def describe_files(folder: Path) -> dict[str, File]:
    """Every file below `folder` except manifest.json, hashed and flushed to the disk."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == NAME:
            continue
        flush(path)
        stat = path.stat()
        files[name] = File(stat.st_size, stat.st_mtime_ns, sha256(path), stat.st_ctime_ns)
    return files


def output_digests(names: tuple[str, ...], files: Mapping[str, File]) -> dict[str, str]:
    """Digest of each named output: the paths and contents of the files that belong to it.

    The top entry of a file's path names its output: `kept.parquet` and `kept/part-0.parquet` both
    belong to `kept`.
    """
    digests = {}
    for name in names:
        content = {path: file.sha256 for path, file in files.items() if entry_name(path) == name}
        if content:
            digests[name] = hashlib.sha256(canonical(content).encode()).hexdigest()
    return digests


def digest_of(entry: Path) -> str:
    """Digest of an output by its path: from the manifest next to it, or, for a path outside of
    the store, from its content."""
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
    folder: Path, manifest: Manifest, digests: DigestCache, deep: bool = False
) -> tuple[str, str] | None:
    """What is wrong with the files of an artifact, as ("missing" | "edited" | "unreadable", file
    name); None if it is complete.

    Compares size and times; a file whose time differs is hashed and counts as unchanged if its
    content is the same. A file that was added to an output is an edit, too. `deep` hashes
    every file.
    """
    for name, file in manifest.files.items():
        try:
            if not _is_unchanged(folder / name, file, digests, deep):
                return "edited", name
        except (FileNotFoundError, NotADirectoryError):  # also while it is being collected
            return "missing", name
        except OSError as error:
            return "unreadable", f"{name} ({error.strerror})"
    added = _added(folder, manifest)
    return ("edited", added) if added else None


def _is_unchanged(path: Path, file: File, digests: DigestCache, deep: bool) -> bool:
    stat = path.stat()
    if stat.st_size != file.size:
        return False
    if deep:
        return sha256(path) == file.sha256
    return _has_times_of(stat, file) or digests.digest(path) == file.sha256


def _has_times_of(stat: os.stat_result, file: File) -> bool:
    """Whether neither modification nor change time differ: an edit can restore only the first."""
    return stat.st_mtime_ns == file.mtime_ns and file.ctime_ns in (None, stat.st_ctime_ns)


def _added(folder: Path, manifest: Manifest) -> str | None:
    """A file in the folder of an output that is not in the manifest; hidden files are ignored."""
    tops = {name.partition("/")[0] for name in manifest.files if "/" in name}
    for top in sorted(top for top in tops if entry_name(top) in manifest.outputs):
        for place, folders, names in os.walk(folder / top):
            folders.sort()
            for name in sorted(names):
                relative = f"{place}/{name}"[len(f"{folder}/") :]
                if relative not in manifest.files and not name.startswith("."):
                    return relative
    return None
