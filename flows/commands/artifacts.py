"""`finetune verify | adopt | accept | gc`: checks, manual changes and removal of artifacts."""

from contextlib import nullcontext

import click

from flows import messages, terminal
from flows.commands.options import stage_argument, takes_settings
from flows.session import Request, open_session
from flows.store_access import open_store, plan_of, root
from tasks.core.artifacts import champion as champions
from tasks.core.artifacts import garbage_collection, maintenance
from tasks.core.cache import manifest as manifests
from tasks.core.cache.store import KEY_DIGITS
from tasks.core.errors import PipelineError


@click.command
@click.option("--deep", is_flag=True, help="Read every byte (sha256).")
def verify(deep: bool) -> int:
    """Check that the stored result of every stage is complete.

    Exit code 1 if one is damaged.
    """
    good = bad = 0
    with open_store() as store:
        for folder, problem in maintenance.verify(store, deep):
            if problem is None:
                good += 1
                continue
            bad += problem[0] != "set aside"
            terminal.show(f"{folder.parent.name}/{folder.name}: {' '.join(problem)}")
    how = "sha256 of every file" if deep else "size and time of every file"
    terminal.show(f"{good} of {good + bad} artifacts are complete ({how}).")
    if bad:
        terminal.show(
            "`finetune run` recreates damaged ones; `finetune adopt STAGE` keeps your edit."
        )
    return 1 if bad else 0


@click.command
@stage_argument()
@takes_settings
def adopt(request: Request, stage: str) -> int:
    """Keep a manual change of a stored result.

    After you edit files of a stage below artifacts/, this makes the later stages use them.

    \b
    Example:
      finetune adopt filter
    """
    with open_session(request.leading_to(stage), to_write=True) as session:
        plan = plan_of(session, stage)
        if plan.key is None:
            raise PipelineError(
                f"the key of stage {stage} is unknown ({messages.short_reason(plan)})",
                "Run or adopt the stages before it first.",
            )
        adopted = maintenance.adopt(session.store, stage, plan.key, plan.stage.outputs)
    terminal.show(
        f"adopted {stage}/{adopted.key[:KEY_DIGITS]}; the next run updates dependent stages"
    )
    return 0


@click.command
@stage_argument()
@click.option("--undo", is_flag=True, help="Undo an earlier `accept`.")
@takes_settings
def accept(request: Request, stage: str, undo: bool) -> int:
    """Declare a change of code or packages harmless for a stage.

    The stage then keeps its stored result and does not run because of this change.

    \b
    Example:
      finetune accept train
    """
    with open_session(request.leading_to(stage), to_write=True) as session:
        plan = plan_of(session, stage)
        if undo:
            maintenance.undo_accept(session.store, plan)
            terminal.show(f"undone: {stage} will run again")
            return 0
        accepted = maintenance.accept(session.store, plan)
    terminal.show(f"accepted {stage}/{accepted.key[:KEY_DIGITS]}: {messages.reason(plan)}")
    terminal.show(f"Undo with: finetune accept {stage} --undo")
    return 0


@click.command
@click.option(
    "--keep-last",
    type=click.IntRange(min=0),
    default=3,
    metavar="N",
    show_default=True,
    help="Keep the last N runs.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(min=0),
    default=7.0,
    metavar="D",
    show_default=True,
    help="Also keep the runs of the last D days.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
def gc(keep_last: int, keep_days: float, dry_run: bool) -> int:
    """Remove stored results that are no longer needed.

    Those of recent runs, pinned runs and promoted models are kept.

    \b
    Example:
      finetune gc --dry-run
    """

    def waiting() -> None:
        terminal.show("waiting for a run in progress to end")

    if not root().is_dir():
        terminal.show(f"Nothing to remove: there is no folder {root()}.")
        return 0
    with open_store() as store, nullcontext() if dry_run else store.alone(waiting):
        pinned = champions.pinned(root())
        garbage = garbage_collection.find_garbage(store, keep_last, keep_days, pinned)
        for folder in garbage.folders:
            manifest = manifests.read(folder)
            cost = messages.duration(manifest.seconds) if manifest else "unknown"
            terminal.show(f"  {folder.parent.name}/{folder.name}  recreating takes {cost}")
        for folder in garbage.unfinished:
            terminal.show(f"  {folder.name}  unfinished, of a run that is not kept")
        if not (garbage.folders or garbage.unfinished or garbage.leftovers):
            terminal.show("Nothing to remove.")
            return 0
        counts = {
            "artifact": garbage.folders,
            "unfinished stage": garbage.unfinished,
            "leftover": garbage.leftovers,
        }
        named = ", ".join(messages.plural(len(f), noun) for noun, f in counts.items() if f)
        again = f"; recreating them takes {messages.duration(garbage.remake_seconds)}"
        terminal.show(
            f"{'would free' if dry_run else 'freeing'} {messages.size(garbage.freed_bytes)}: "
            f"{named}{again if garbage.folders else ''}"
        )
        if not dry_run:
            garbage_collection.collect(root(), garbage)
            store.digests.prune()
    return 0
