"""Several runs side by side: settings, packages, data and metrics in which they differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache.cache_key import key_of
from tasks.core.cache.manifest import Manifest

GROUPS = {"config": "", "sources": "source ", "env": "version of "}  # parts of a key -> prefix
DIGEST_DIGITS = 64
MISSING = "–"


@dataclass(frozen=True)
class DifferentValue:
    """One value in which the runs differ.

    Attributes:
        values: Of each run, as text; `MISSING` where it has none.
    """

    stage: str
    name: str
    values: tuple[str, ...]


def differences(
    records: Sequence[RunRecord], made: Sequence[Mapping[str, Manifest]]
) -> list[DifferentValue]:
    """What differs between runs, by stage: causes first, then row counts and metrics.

    Args:
        records: The runs.
        made: Manifests of the artifacts of each run that still exist, by stage.
    """
    found = []
    for stage in dict.fromkeys(stage for record in records for stage in record.keys):
        if len({record.keys.get(stage) for record in records}) == 1:
            continue
        columns = [dict(_values(each[stage])) if stage in each else {} for each in made]
        for name in dict.fromkeys(name for column in columns for name in column):
            values = tuple(column.get(name, MISSING) for column in columns)
            if len(set(values)) > 1:
                found.append(DifferentValue(stage, name, values))
    return found


def same(records: Sequence[RunRecord]) -> list[str]:
    """Stages whose artifact is the same in all runs."""
    stages = dict.fromkeys(stage for record in records for stage in record.keys)
    return [s for s in stages if len({record.keys.get(s) for record in records}) == 1]


def _values(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(Name, value) of the parts of a key and of the summary."""
    for group, prefix in GROUPS.items():
        for name, value in manifest.parts.get(group, {}).items():
            yield f"{prefix}{name}", _shown(value)
    yield "code", key_of({"code": manifest.parts.get("code", {})})[:8]
    for name in ("rows_in", "rows_out"):
        if manifest.summary.get(name) is not None:
            yield name, f"{manifest.summary[name]:,}"
    for name, value in sorted(manifest.summary.get("metrics", {}).items()):
        yield name, f"{value:.6g}"
    yield "seconds", f"{manifest.seconds:.1f}"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:8] if len(text) == DIGEST_DIGITS else text
