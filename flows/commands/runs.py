"""`finetune pin | diff`: keep the artifacts of a run, compare two runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from flows import messages
from flows.commands.options import RUN_ID, RUN_IDS
from flows.side_by_side import differences, same
from flows.store_access import root
from tasks.core.artifacts import runs
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache import manifest as manifests
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import between
from tasks.core.cache.store import KEY_DIGITS, Store
from tasks.core.errors import PipelineError
from tasks.core.system.atomic_write import write_text


@click.command(context_settings=RUN_IDS)
@click.argument("run", metavar="RUN", help=RUN_ID)
@click.option("--undo", is_flag=True, help="Unpin the run.")
def pin(run: str, undo: bool) -> int:
    """Keep the artifacts of a run out of `gc`."""
    found = runs.read(root(), run)
    runs.pin(root(), found.id, undo)
    print(f"{'unpinned' if undo else 'pinned'}: {found.id} ({found.profile})")
    return 0


@click.command(context_settings=RUN_IDS)
@click.argument("named", nargs=-1, required=True, metavar="RUN RUN...", help=RUN_ID)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the runs side by side to this HTML file, with learning curves.",
)
def diff(named: tuple[str, ...], page: Path | None) -> int:
    """Show which parts of the cache keys and which metrics differ between runs.

    Two runs are compared cause by cause, more in a table with a column for each.
    """
    if len(named) < 2:
        raise PipelineError(
            f"one run is given ({named[0]}), a comparison needs two or more",
            "Name another one, for example `finetune diff -2 -1`.",
        )
    records = [runs.read(root(), run) for run in named]
    if page is not None:
        return _write_page(records, page)
    if len(records) > 2:
        return _diff_many(records)
    (first, second), (a, b) = named, records
    print(f"{a.id} ({a.profile}) -> {b.id} ({b.profile})")
    store = Store(root(), DigestCache(None))
    made = {stage: m for stage, key in b.keys.items() if (m := _manifest(stage, key))}
    same = []
    for stage in dict.fromkeys([*a.keys, *b.keys]):
        old, new = _manifest(stage, a.keys.get(stage)), made.get(stage)
        if a.keys.get(stage) == b.keys.get(stage):
            same.append(stage)
        elif old is None or new is None:
            which = first if old is None else second
            print(f"{stage:<10}the artifact of run {which} no longer exists")
        else:
            for cause in between(store, old, new, made):
                print(f"{stage:<10}{messages.cause_line(cause)}")
            _print_changed_values(stage, old, new)
    print(f"same: {', '.join(same) or 'none'}")
    return 0


def _diff_many(records: Sequence[RunRecord]) -> int:
    """Print a table with a column for each run."""
    made = _artifacts(records)
    for number, record in enumerate(records, 1):
        print(f"{number}  {record.id} ({record.profile})")
    table = Table("stage", "value", *map(str, range(1, len(records) + 1)), box=None)
    for found in differences(records, made):
        table.add_row(found.stage, found.name, *found.values)
    Console(soft_wrap=not sys.stdout.isatty()).print(table, markup=False, highlight=False)
    print(f"same: {', '.join(same(records)) or 'none'}")
    return 0


def _write_page(records: Sequence[RunRecord], page: Path) -> int:
    """Write the runs side by side to an HTML file."""
    from flows.sweep import runs_page

    folder = page.resolve().parent
    if not folder.is_dir():
        raise PipelineError(f"folder {folder} does not exist", "Create it, or name another file.")
    write_text(page, runs_page.render(records, _artifacts(records), root().resolve(), folder))
    print(page)
    return 0


def _artifacts(records: Sequence[RunRecord]) -> list[dict[str, Manifest]]:
    """The artifacts of each run that still exist, by stage."""
    return [
        {stage: m for stage, key in record.keys.items() if (m := _manifest(stage, key))}
        for record in records
    ]


def _manifest(stage: str, key: str | None) -> Manifest | None:
    return manifests.read(root() / stage / key[:KEY_DIGITS]) if key else None


def _print_changed_values(stage: str, old: Manifest, new: Manifest) -> None:
    """Print the row counts and metrics of a stage that differ."""
    for name in ("rows_in", "rows_out"):
        if old.summary.get(name) != new.summary.get(name):
            print(f"{stage:<10}{name} {old.summary.get(name)} -> {new.summary.get(name)}")
    before, after = old.summary.get("metrics", {}), new.summary.get("metrics", {})
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            print(f"{stage:<10}{name} {before[name]:.6g} -> {after[name]:.6g}")
