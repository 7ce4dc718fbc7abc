"""Promotion: makes a merged model the champion if it is shown to be better.

A challenger must beat the base, by its own evaluation, and the champion, on the held-out rows and
problems that both were measured on.
"""

from collections.abc import Mapping

from flows import terminal
from flows.session import Request, open_session
from flows.store_access import current_artifact, root
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
            terminal.show(f"{standing.name} is already the champion")
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
    terminal.show(f"promoted {entry.name}: {outcome_of(entry)}")
    print_reasons(entry)
    terminal.show(f"{root() / champions.LINK / 'model'}\nUndo with: finetune rollback")
    return 0


def _metrics(made: Mapping[str, Manifest]) -> dict[str, float]:
    found = {}
    for stage in (MEASURED, STAGE):
        found.update(made[stage].summary.get("metrics", {}))
    return found


def outcome_of(entry: ChampionChange) -> str:
    """Verdicts, force and reason in one phrase."""
    parts = [f"{verdict} over the {name}" for name, verdict in entry.verdicts.items()]
    parts += ["forced"] if entry.forced else []
    parts += [f'"{entry.why}"'] if entry.why else []
    return ", ".join(parts)


def print_reasons(entry: ChampionChange) -> None:
    """Print the sentences of each comparison."""
    for name, sentences in entry.reasons.items():
        terminal.show(f"  against the {name}: {' '.join(sentences)}")
