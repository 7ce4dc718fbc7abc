"""`finetune pin | diff`: keep the artifacts of a run, compare two runs."""

import click

from flows import messages
from flows.commands.options import RUN_ID, RUN_IDS
from flows.store_access import root
from tasks.core.artifacts import runs
from tasks.core.cache import manifest as manifests
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import between
from tasks.core.cache.store import KEY_DIGITS, Store


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
@click.argument("pair", nargs=2, metavar="RUN RUN", help=RUN_ID)
def diff(pair: tuple[str, str]) -> int:
    """Show which parts of the cache keys and which metrics differ between two runs."""
    first, second = pair
    a, b = runs.read(root(), first), runs.read(root(), second)
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
