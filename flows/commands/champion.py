"""`finetune promote | rollback | champion`: promote a merged model, roll back, show it.

A challenger has to be better than the base, by the verdict of its own evaluation, and better than
the current champion, by `tasks.evaluation.challenger`.
"""

import dataclasses
import json
from collections.abc import Mapping

import click

from flows.commands import options
from flows.session import Request, open_session
from flows.store_access import current_artifact, open_store, root
from tasks.core.artifacts import champion as champions
from tasks.core.artifacts.champion import PROMOTE, ChampionChange
from tasks.core.cache.manifest import Manifest

STAGE, MEASURED = "merge", "evaluate"


def promote_model(request: Request, force: bool, because: str) -> int:
    """Make the merged model of these settings the champion."""
    from tasks.evaluation import challenger

    with open_session(request, to_write=True) as session:
        made = {plan.stage.name: current_artifact(plan) for plan in session.plans}
        standing = champions.current(session.store)
        key = made[STAGE].key
        if standing is not None and standing.key == key:
            print(f"{standing.name} is already the champion")
            return 0
        gate = challenger.read_json(session.store, made[MEASURED], "gate")
        compared = {"base": (str(gate["verdict"]), tuple(gate["reasons"]))}
        if standing is not None:
            margins = session.config.evaluate.gate.model_dump()
            compared["champion"] = challenger.against(session.store, standing.chain, made, margins)
        verdicts = {name: verdict for name, (verdict, _) in compared.items()}
        reasons = {name: sentences for name, (_, sentences) in compared.items()}
        entry = ChampionChange(
            PROMOTE,
            STAGE,
            key,
            because,
            verdicts=verdicts,
            reasons=reasons,
            forced=champions.check(verdicts, reasons, force=force, because=because),
            metrics=_metrics(made),
            chain={stage: manifest.key for stage, manifest in made.items()},
            profile=request.profile,
            overrides=tuple(request.overrides),
        )
        champions.promote(session.store, entry)
    print(f"promoted {entry.name}: {_outcome(entry)}")
    _print_reasons(entry)
    print(f"{root() / champions.LINK / 'model'}\nUndo with: finetune rollback")
    return 0


def _metrics(made: Mapping[str, Manifest]) -> dict[str, float]:
    found = {}
    for stage in (MEASURED, STAGE):
        found.update(made[stage].summary.get("metrics", {}))
    return found


def _outcome(entry: ChampionChange) -> str:
    """Verdicts, force and reason in one phrase."""
    parts = [f"{verdict} over the {name}" for name, verdict in entry.verdicts.items()]
    parts += ["forced"] if entry.forced else []
    parts += [f'"{entry.why}"'] if entry.why else []
    return ", ".join(parts)


def _print_reasons(entry: ChampionChange) -> None:
    for name, sentences in entry.reasons.items():
        print(f"  against the {name}: {' '.join(sentences)}")


@click.command
@click.option(
    "--force", is_flag=True, help="Promote a model that is not shown to be better; recorded."
)
@options.because
@options.takes_settings
def promote(request: Request, force: bool, because: str) -> int:
    """Promote the merged model of these settings to champion."""
    return promote_model(request, force, because)


@click.command
@options.because
def rollback(because: str) -> int:
    """Undo the last promotion."""
    with open_store() as store, store.in_use():
        last, now = champions.rollback(store, because)
    print(f"rolled back: {last.name} -> {now.name}, promoted {now.when}")
    return 0


@click.command
@options.as_json
def champion(as_json: bool) -> int:
    """Show the promoted model and the history of promotions, the latest first."""
    with open_store() as store:
        now = champions.current(store)
        entries = champions.history(root())
        found = store.find(now.stage, now.key) if now else None
    whole = found is not None and found.manifest is not None
    if as_json:
        plain = dataclasses.asdict(now) if now else None
        changes = [dataclasses.asdict(entry) for entry in entries]
        print(json.dumps({"champion": plain, "whole": whole, "history": changes}, indent=2))
        return 0
    if now is None:
        print("No model is promoted. Promote the one of your settings with: finetune promote")
        return 0
    print(f"{now.name}, promoted {now.when}: {_outcome(now)}")
    print(root() / champions.LINK / "model")
    if not whole:
        problem = " ".join(found.problem) if found and found.problem else "it does not exist"
        print(f"DAMAGED: {problem}. Roll back with: finetune rollback")
    _print_reasons(now)
    for name, value in now.metrics.items():
        print(f"  {name:<32}{value:>12.6g}")
    print("history")
    for entry in reversed(entries):
        print(f"  {entry.when}  {entry.action:<9} {entry.name}  {_outcome(entry)}")
    return 0
