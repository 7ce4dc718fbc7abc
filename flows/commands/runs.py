"""`finetune runs | pin | diff`: the recorded runs, keep the artifacts of one, compare two."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from flows import messages, terminal
from flows.commands.options import RUN_ID, RUN_IDS, as_json
from flows.store_access import root
from flows.sweep.side_by_side import differences, same
from tasks.core.artifacts import runs
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache import manifest as manifests
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import between
from tasks.core.cache.store import KEY_DIGITS, LOCKS, Store
from tasks.core.errors import PipelineError, RecordError
from tasks.core.system.atomic_write import write_text
from tasks.core.system.file_lock import is_locked
from tasks.core.system.home import short_path

SHOWN_RUNS = 10
MAX_OVERRIDE = 40  # characters; `--json` shows all


@dataclass(frozen=True)
class RunRow:
    """One line of the table of runs.

    Attributes:
        id: As short as is unique; `diff`, `pin` and `show --run` accept it.
        started: ISO 8601, UTC.
        ran: Stages that ran; the others were in the cache.
        state: "done", "running", or "stopped in STAGE".
        verdict: Of its evaluation; "" without one, or if its artifact is gone.
        seconds: Total of the stages that ran.
    """

    id: str
    started: str
    ran: tuple[str, ...]
    state: str
    verdict: str
    seconds: float
    profile: str
    overrides: tuple[str, ...]
    pinned: bool

    def line(self, now: datetime) -> str:
        """The row as text."""
        age = messages.age((now - datetime.fromisoformat(self.started)).total_seconds())
        cost = messages.duration(self.seconds) if self.ran else ""
        notes = [self.verdict, "" if self.state == "done" else self.state]
        notes += ["pinned"] if self.pinned else []
        result = ", ".join(note for note in notes if note)
        ran = messages.stage_names(self.ran) or "nothing"
        name = short_path(self.profile)
        cut = (o[:MAX_OVERRIDE] + "..." * (len(o) > MAX_OVERRIDE) for o in self.overrides)
        changes = "".join(f" --set {override}" for override in cut)
        return f"{self.id:<22}{age:<10}{cost:<15}" + "; ".join(
            text for text in (ran, f"{name}{changes}", result) if text
        )


def rows(shown: int) -> list[RunRow]:
    """The last runs, the newest first."""
    known, pinned = runs.ids(root()), set(runs.pinned(root()))
    found = []
    for run in reversed(known[-shown:]):
        try:
            record = runs.load(root(), run)
        except RecordError as error:
            click.echo(f"{error.problem}. {error.remedy}", err=True)
            continue
        found.append(_row(record, _short(run, known), run in pinned))
    return found


def _row(record: RunRecord, short: str, pinned: bool) -> RunRow:
    made = {stage: m for stage, key in record.keys.items() if (m := _manifest(stage, key))}
    own = {s: m for s, m in made.items() if messages.is_own(m, record.flow_run)}
    start = datetime.strptime(record.id.partition("-")[0], "%Y%m%dT%H%M%S")
    return RunRow(
        id=short,
        started=start.replace(tzinfo=UTC).isoformat(),
        ran=tuple(own),
        state=_state(record),
        verdict=messages.verdict(made.get("evaluate")),
        seconds=sum(m.seconds for m in own.values()),
        profile=record.profile,
        overrides=record.overrides,
        pinned=pinned,
    )


def _state(record: RunRecord) -> str:
    if record.ended:
        return "done"
    if record.making and is_locked(root() / LOCKS / record.making):
        return "running"
    stage = record.making.rpartition("-")[0]
    return f"stopped in {stage}" if stage else "stopped"


def _short(run: str, known: list[str]) -> str:
    """The id without the process, where that is unique."""
    short = run.rpartition("-")[0]
    return short if sum(name.startswith(short) for name in known) == 1 else run


@click.command("runs")
@click.option("--all", "everything", is_flag=True, help=f"Not only the last {SHOWN_RUNS}.")
@as_json
def list_runs(everything: bool, as_json: bool) -> int:
    """List the runs: what ran, its duration and verdict."""
    count = len(runs.ids(root()))
    found = rows(count if everything else min(count, SHOWN_RUNS))
    if as_json:
        print(json.dumps([asdict(row) for row in found], indent=2))
        return 0
    if not found:
        terminal.show("No run is recorded. Start one with: finetune run")
        return 0
    terminal.show(f"{'RUN':<22}{'AGE':<10}{'TOOK':<15}RAN; PROFILE; RESULT")
    now = datetime.now(UTC)
    for row in found:
        terminal.show(row.line(now))
    if count > len(found):
        terminal.show(f"{count - len(found)} more: finetune runs --all")
    terminal.show("Ids are accepted by: finetune show --run ID, diff ID ID, pin ID")
    return 0


@click.command(context_settings=RUN_IDS)
@click.argument("run", metavar="RUN", help=RUN_ID)
@click.option("--undo", is_flag=True, help="Unpin the run.")
def pin(run: str, undo: bool) -> int:
    """Keep the results of a run when `gc` removes others.

    \b
    Example:
      finetune pin -1
    """
    found = runs.read(root(), run)
    runs.pin(root(), found.id, undo)
    terminal.show(f"{'unpinned' if undo else 'pinned'}: {found.id} ({found.profile})")
    return 0


@click.command(context_settings=RUN_IDS)
@click.argument("named", nargs=-1, required=True, metavar="RUN RUN...", help=RUN_ID)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the runs side by side to this HTML file, with learning curves.",
)
def diff(named: tuple[str, ...], page: Path | None) -> int:
    """Show what differs between runs, and their metrics.

    Two runs are compared setting by setting, more in a table with a column for each.

    \b
    Example:
      finetune diff -2 -1
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
    terminal.show(f"{a.id} ({a.profile}) -> {b.id} ({b.profile})")
    store = Store(root(), DigestCache(None))
    made = {stage: m for stage, key in b.keys.items() if (m := _manifest(stage, key))}
    unchanged = []
    for stage in dict.fromkeys([*a.keys, *b.keys]):
        old, new = _manifest(stage, a.keys.get(stage)), made.get(stage)
        if a.keys.get(stage) == b.keys.get(stage):
            unchanged.append(stage)
        elif old is None or new is None:
            which = first if old is None else second
            terminal.show(f"{stage:<10}the artifact of run {which} no longer exists")
        else:
            for cause in between(store, old, new, made):
                terminal.show(f"{stage:<10}{messages.cause_line(cause)}")
            _print_changed_values(stage, old, new)
    terminal.show(f"same: {', '.join(unchanged) or 'none'}")
    return 0


def _diff_many(records: Sequence[RunRecord]) -> int:
    """Print a table with a column for each run."""
    made = _artifacts(records)
    for number, record in enumerate(records, 1):
        terminal.show(f"{number}  {record.id} ({record.profile})")
    table = Table("stage", "value", *map(str, range(1, len(records) + 1)), box=None)
    for found in differences(records, made):
        table.add_row(found.stage, found.name, *found.values)
    Console(soft_wrap=not sys.stdout.isatty()).print(table, markup=False, highlight=False)
    terminal.show(f"same: {', '.join(same(records)) or 'none'}")
    return 0


def _write_page(records: Sequence[RunRecord], page: Path) -> int:
    """Write the runs side by side to an HTML file."""
    from flows.sweep import runs_page

    folder = page.resolve().parent
    if not folder.is_dir():
        raise PipelineError(f"folder {folder} does not exist", "Create it, or name another file.")
    write_text(page, runs_page.render(records, _artifacts(records), root().resolve(), folder))
    terminal.show(str(page))
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
            terminal.show(f"{stage:<10}{name} {old.summary.get(name)} -> {new.summary.get(name)}")
    before, after = old.summary.get("metrics", {}), new.summary.get("metrics", {})
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            (words, was), (_, now) = (messages.metric(name, m[name]) for m in (before, after))
            terminal.show(f"{stage:<10}{words} {was} -> {now}")
