"""Lineage: the artifacts that an evaluation used, with the parts of their cache keys."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.core.cache import manifest as manifests
from tasks.core.cache.cache_key import canonical
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import KEY_DIGITS
from tasks.evaluation.generation.completion_cache import key_of

_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class LineageEntry:
    """One artifact that the evaluation used.

    Attributes:
        stage: Its stage.
        key: First digits of its key.
        line: Its summary in one line.
        seconds: How long it took.
        created: ISO 8601.
        commit: Of the program; "" unknown.
        parts: Parts of its key: name -> digest, version or value.
    """

    stage: str
    key: str
    line: str
    seconds: float
    created: str
    commit: str
    parts: tuple[tuple[str, str], ...]


def trace(paths: Iterable[Path]) -> tuple[LineageEntry, ...]:
    """The artifacts that contain these paths, each after those that it used."""
    folders = dict.fromkeys(path.parent for path in paths)
    found = {m.stage: m for folder in folders if (m := manifests.read(folder)) is not None}
    ordered: dict[str, Manifest] = {}

    def add(manifest: Manifest) -> None:
        for label in manifest.parts.get("inputs", {}):
            stage = label.partition(".")[0]
            if stage in found and stage not in ordered and stage != manifest.stage:
                add(found[stage])
        ordered.setdefault(manifest.stage, manifest)

    for manifest in found.values():
        add(manifest)
    return tuple(_origin(manifest) for manifest in ordered.values())


def _origin(manifest: Manifest) -> LineageEntry:
    return LineageEntry(
        stage=manifest.stage,
        key=manifest.key[:KEY_DIGITS],
        line=str(manifest.summary.get("line", "")),
        seconds=manifest.seconds,
        created=str(manifest.made.get("created", "")),
        commit=str(manifest.made.get("commit", "")),
        parts=tuple(_parts(manifest.parts)),
    )


def _parts(parts: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    """The key's parts with shortened digests; code as one digest."""
    for kind in ("sources", "inputs"):
        for name, digest in _mapping(parts.get(kind)).items():
            yield f"{kind[:-1]} {name}", str(digest)[:_SHOWN_DIGITS]
    if code := _mapping(parts.get("code")):
        yield f"code, {len(code)} modules", key_of(code=code)[:_SHOWN_DIGITS]
    for name, version in _mapping(parts.get("env")).items():
        yield f"version of {name}", str(version)
    for name, value in _mapping(parts.get("config")).items():
        yield name, value if isinstance(value, str) else canonical(value)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
