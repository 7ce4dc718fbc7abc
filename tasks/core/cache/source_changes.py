"""Details of a change of data: the source files that differ, or the number of rows that changed.

A key contains one digest per input, which shows only that the input changed. The files of the
sources are listed in `.sources.json` next to the outputs of the stage that read them; the rows of
an input are compared by their ids, where both artifacts still exist.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.core.cache import manifest as manifests
from tasks.core.cache.causes import Cause, difference
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.system.escape_text import escape_controls, printable
from tasks.core.system.home import home, short_path

SOURCES = ".sources.json"
ROW_ID = "row_id"
SHOWN_FILES = 3
COMPARED_ROWS = 5_000_000  # more would slow down the plan; then only their number is reported


class Recorder:
    """A digest function that records the files it was called for.

    Attributes:
        files: Path, relative to the home folder if it is below it -> digest.
        paths: The same files.
    """

    def __init__(self, digest_of: Callable[[Path], str]) -> None:
        self.files: dict[str, str] = {}
        self.paths: list[Path] = []
        self._digest_of = digest_of
        self._home = f"{home()}/"

    def __call__(self, path: Path) -> str:
        """The digest of a file, recorded; one that can't be read is recorded, too."""
        self.paths.append(path)
        name = str(path).removeprefix(self._home)
        self.files[name] = "unreadable"
        self.files[name] = digest = self._digest_of(path)
        return digest

    def write(self, folder: Path) -> None:
        """Write the list to `folder`, for comparison by later plans."""
        text = json.dumps(self.files, sort_keys=True, ensure_ascii=False)
        (folder / SOURCES).write_bytes(text.encode("utf-8", "surrogateescape"))


def with_files(
    causes: Sequence[Cause],
    sources: Collection[str],
    before: Mapping[str, str] | None,
    now: Mapping[str, str] | None,
) -> tuple[Cause, ...]:
    """Causes with the changed files, as the detail of the last cause that names a source.

    Args:
        causes: From `causes.difference`.
        sources: Names of the sources, from the key's parts.
        before: Files of the sources when the nearest artifact was produced.
        now: Files of the sources now.
    """
    named = [i for i, c in enumerate(causes) if c.kind == "data" and c.what in sources]
    if not named or before is None or now is None:
        return tuple(causes)
    detailed = list(causes)
    detailed[named[-1]] = replace(detailed[named[-1]], detail=changed_files(before, now))
    return tuple(detailed)


def between(
    store: Store, old: Manifest, new: Manifest, made: Mapping[str, Manifest]
) -> list[Cause]:
    """What differs between two artifacts of a stage.

    Args:
        store: Holds both.
        old: The one before.
        new: The one after.
        made: Manifests of the stages that `new` depends on.
    """
    sources = {*old.parts.get("sources", {}), *new.parts.get("sources", {})}
    files = (files_of(store, manifest) for manifest in (old, new))
    return with_rows(store, with_files(difference(new.parts, old), sources, *files), made)


def files_of(store: Store, manifest: Manifest) -> dict[str, str] | None:
    """Files of the sources of an artifact; None if it has no list of them."""
    path = store.folder(manifest.stage, manifest.key) / SOURCES
    try:
        found = json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))
    except (OSError, ValueError):
        return None
    return {str(name): str(digest) for name, digest in found.items()}


def changed_files(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """ "changed: a.jsonl; new: b.jsonl; gone: c.jsonl"; "" if none differs."""
    groups = {
        "changed": [name for name in old if name in new and old[name] != new[name]],
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    return "; ".join(f"{kind}: {_listed(sorted(names))}" for kind, names in groups.items() if names)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_FILES
    shown = (escape_controls(printable(short_path(name))) for name in names[:SHOWN_FILES])
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def with_rows(store: Store, causes: Sequence[Cause], made: Mapping[str, Manifest]) -> list[Cause]:
    """Causes with what changed inside each input that they name.

    Args:
        store: Holds the earlier artifacts.
        causes: From `causes.difference`.
        made: Manifests of the current artifacts of the stages before.
    """
    return [replace(cause, detail=_inside_input(store, cause, made)) for cause in causes]


def _inside_input(store: Store, cause: Cause, made: Mapping[str, Manifest]) -> str:
    """What changed in the input that a cause names; else the detail of the cause itself."""
    stage, _, output = cause.what.partition(".")
    if cause.kind != "data" or not output or stage not in made or not (cause.old and cause.new):
        return cause.detail
    old = store.with_output(stage, output, cause.old)
    return inside(store, output, old, made[stage]) if old else ""


def inside(store: Store, output: str, old: Manifest, new: Manifest) -> str:
    """What changed in an output: rows added and removed, or the files that differ."""
    before, after = (
        {
            name: file.sha256
            for name, file in m.files.items()
            if manifests.entry_name(name) == output
        }
        for m in (old, new)
    )
    moved = [name for name in before.keys() & after.keys() if before[name] != after[name]]
    folders = [store.folder(m.stage, m.key) for m in (old, new)]
    for name in sorted(moved):
        if name.endswith(".parquet") and (text := _rows(*(folder / name for folder in folders))):
            return text
    return changed_files(before, after)


def _rows(old: Path, new: Path) -> str:
    """ "12 rows added, 3 removed"; "" if a file is missing or not a table of rows."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        tables = [pq.ParquetFile(path) for path in (old, new)]
    except (OSError, pa.ArrowInvalid):
        return ""
    before, after = (table.metadata.num_rows for table in tables)
    if any(ROW_ID not in table.schema_arrow.names for table in tables):
        return ""
    if max(before, after) > COMPARED_ROWS:
        return f"{before:,} -> {after:,} rows"
    ids = [table.read([ROW_ID]).column(0).combine_chunks() for table in tables]
    kept = [pc.sum(pc.is_in(a, value_set=b)).as_py() or 0 for a, b in (ids, ids[::-1])]
    gone, came = before - kept[0], after - kept[1]
    if gone or came:
        parts = [(came, "added"), (gone, "removed")]
        return ", ".join(f"{n:,} row{'s' * (n != 1)} {verb}" for n, verb in parts if n)
    return f"the same {after:,} rows with other content or in another order"
