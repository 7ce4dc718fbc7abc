"""`finetune verify | adopt | accept | gc | pin | diff`: looking after the artifacts."""

from contextlib import nullcontext
from pathlib import Path

from flows import messages
from flows.session import Request, Session, open_session
from tasks.core.artifacts import champion as champions
from tasks.core.artifacts import maintenance, runs
from tasks.core.artifacts.garbage_collection import collect as remove
from tasks.core.artifacts.garbage_collection import find_garbage
from tasks.core.cache import manifest as manifests
from tasks.core.cache.decision import StagePlan
from tasks.core.cache.digest_cache import Memo
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.source_changes import between
from tasks.core.cache.store import KEY_DIGITS, Store
from tasks.core.errors import PipelineError
from tasks.core.system.home import home


def root() -> Path:
    """The artifacts folder."""
    return home() / "artifacts"


def verify(deep: bool) -> int:
    """Check every artifact; 0 if all are whole, else 1."""
    good = bad = 0
    with Memo(root() / ".digests.sqlite") as memo:
        for folder, problem in maintenance.verify(Store(root(), memo), deep):
            if problem is None:
                good += 1
                continue
            bad += 1
            print(f"{folder.parent.name}/{folder.name}: {' '.join(problem)}")
    how = "sha256 of every file" if deep else "size and time of every file"
    print(f"{good} of {good + bad} artifacts are whole ({how}).")
    if bad:
        print("`finetune run` makes damaged ones again; `finetune adopt STAGE` keeps your edit.")
    return 1 if bad else 0


def _plan_of(session: Session, stage: str) -> StagePlan:
    return next(plan for plan in session.plans if plan.stage.name == stage)


def adopt(request: Request, stage: str) -> int:
    """Keep what the user changed in an artifact by hand."""
    with open_session(request, to_write=True) as session:
        plan = _plan_of(session, stage)
        if plan.key is None:
            raise PipelineError(
                f"stage {stage} rests on stages that run first ({messages.reason(plan)})",
                "Adopt or run those before.",
            )
        adopted = maintenance.adopt(session.store, stage, plan.key, plan.stage.outputs)
    print(f"adopted {stage}/{adopted.key[:KEY_DIGITS]}; what rests on it follows at the next run")
    return 0


def accept(request: Request, stage: str, undo: bool) -> int:
    """Declare a change of code or packages harmless for a stage, or take that back."""
    with open_session(request, to_write=True) as session:
        plan = _plan_of(session, stage)
        if undo:
            maintenance.undo_accept(session.store, plan)
            print(f"undone: {stage} will run again")
            return 0
        accepted = maintenance.accept(session.store, plan)
    print(f"accepted {stage}/{accepted.key[:KEY_DIGITS]}: {messages.reason(plan)}")
    print(f"Take it back with: finetune accept {stage} --undo")
    return 0


def collect(keep_last: int, keep_days: float, dry_run: bool) -> int:
    """Remove artifacts that no kept run and no promoted model rests on."""

    def waiting() -> None:
        print("a run is in progress; waiting for it to end", flush=True)

    if not root().is_dir():
        print(f"There is nothing in {root()}.")
        return 0
    with Memo(root() / ".digests.sqlite") as memo:
        store = Store(root(), memo)
        with nullcontext() if dry_run else store.alone(waiting):
            pinned = champions.pinned(root())
            garbage = find_garbage(store, keep_last, keep_days, pinned)
            for folder in garbage.folders:
                manifest = manifests.read(folder)
                cost = messages.duration(manifest.seconds) if manifest else "unknown"
                print(f"  {folder.parent.name}/{folder.name}  remaking costs {cost}")
            for folder in garbage.unfinished:
                print(f"  {folder.name}  half done, by a run that is not kept")
            if not dry_run:
                remove(root(), garbage)
    print(
        f"{'would free' if dry_run else 'freed'} {garbage.freed_bytes / 2**20:,.1f} MiB: "
        f"{len(garbage.folders)} artifacts, {len(garbage.unfinished)} half done, "
        f"{len(garbage.leftovers)} leftovers; "
        f"remaking them costs {messages.duration(garbage.remake_seconds)}"
    )
    return 0


def pin(run: str, undo: bool) -> int:
    """Keep what a run rests on from being collected, or no longer."""
    found = runs.read(root(), run)
    runs.pin(root(), found.id, undo)
    print(f"{'no longer pinned' if undo else 'pinned'}: {found.id} ({found.profile})")
    return 0


def diff(first: str, second: str) -> int:
    """What differs between two runs: parts of keys, and measured values that moved with them."""
    a, b = runs.read(root(), first), runs.read(root(), second)
    print(f"{a.id} ({a.profile}) -> {b.id} ({b.profile})")
    store = Store(root(), Memo(None))
    made = {stage: m for stage, key in b.keys.items() if (m := _manifest(stage, key))}
    same = []
    for stage in dict.fromkeys([*a.keys, *b.keys]):
        old, new = _manifest(stage, a.keys.get(stage)), made.get(stage)
        if a.keys.get(stage) == b.keys.get(stage):
            same.append(stage)
        elif old is None or new is None:
            which = first if old is None else second
            print(f"{stage:<10}no artifact of run {which} any more")
        else:
            for cause in between(store, old, new, made):
                print(f"{stage:<10}{messages.cause_line(cause)}")
            _print_moved(stage, old, new)
    print(f"same: {', '.join(same) or 'none'}")
    return 0


def _manifest(stage: str, key: str | None) -> Manifest | None:
    return manifests.read(root() / stage / key[:KEY_DIGITS]) if key else None


def _print_moved(stage: str, old: Manifest, new: Manifest) -> None:
    """Rows and metrics of a stage that differ, old -> new."""
    for name in ("rows_in", "rows_out"):
        if old.summary.get(name) != new.summary.get(name):
            print(f"{stage:<10}{name} {old.summary.get(name)} -> {new.summary.get(name)}")
    before, after = old.summary.get("metrics", {}), new.summary.get("metrics", {})
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            print(f"{stage:<10}{name} {before[name]:.6g} -> {after[name]:.6g}")
