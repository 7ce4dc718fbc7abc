"""`finetune promote | rollback | champion`: which model is handed out, and why.

A challenger must be shown better than the base, by its own evaluation, and than the champion, on
the held-out rows and problems that both were measured on. Nothing is run for that: the tables of
both evaluations are joined, and the gate's own statistics compare the two tuned models in pairs.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import messages
from flows.session import Request, Session, open_session
from tasks.core.artifacts import champion as champions
from tasks.core.artifacts.champion import PROMOTE, ChampionChange
from tasks.core.cache import manifest as manifests
from tasks.core.cache.decision import HIT
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.core.errors import PipelineError
from tasks.core.system.home import home

STAGE, MEASURED, BASE = "merge", "evaluate", "base"
INCONCLUSIVE = "inconclusive"
Verdict = tuple[str, tuple[str, ...]]


def promote(request: Request, force: bool, because: str) -> int:
    """Make the merged model of these settings the champion."""
    with open_session(request, to_write=True) as session:
        made = _artifacts(session)
        standing = champions.current(session.store)
        key = made[STAGE].key
        verdicts, reasons = {}, {}
        if standing is None or standing.key != key:
            compared = {"base": _gate_of(session.store, made[MEASURED])}
            if standing is not None:
                margins = session.config.evaluate.gate.model_dump()
                compared["champion"] = against(session.store, standing.chain, made, margins)
            verdicts = {name: verdict for name, (verdict, _) in compared.items()}
            reasons = {name: sentences for name, (_, sentences) in compared.items()}
            forced = champions.check(verdicts, reasons, force=force, because=because)
            entry = ChampionChange(
                PROMOTE,
                STAGE,
                key,
                because,
                verdicts=verdicts,
                reasons=reasons,
                forced=forced,
                metrics=_metrics(made),
                chain={stage: manifest.key for stage, manifest in made.items()},
                profile=request.profile,
                overrides=tuple(request.overrides),
            )
            champions.promote(session.store, entry)
        else:
            print(f"{standing.name} is the champion already")
            return 0
    print(f"promoted {entry.name}: {_told(entry)}")
    for name, sentences in reasons.items():
        print(f"  against the {name}: {' '.join(sentences)}")
    print(f"{root() / champions.LINK / 'model'}\nTake it back with: finetune rollback")
    return 0


def rollback(because: str) -> int:
    """Go back to the champion before."""
    with DigestCache(root() / ".digests.sqlite") as digests:
        store = Store(root(), digests)
        with store.in_use():
            last, now = champions.rollback(store, because)
    print(f"rolled back: {last.name} -> {now.name}, promoted {now.when}")
    return 0


def show(as_json: bool) -> int:
    """Print the champion and every change, the latest first."""
    with DigestCache(root() / ".digests.sqlite") as digests:
        store = Store(root(), digests)
        now = champions.current(store)
        entries = champions.history(root())
        problem = store.find(now.stage, now.key).problem if now else None
        whole = now is not None and store.find(now.stage, now.key).manifest is not None
    if as_json:
        plain = dataclasses.asdict(now) if now else None
        changes = [dataclasses.asdict(entry) for entry in entries]
        print(json.dumps({"champion": plain, "whole": whole, "history": changes}, indent=2))
        return 0
    if now is None:
        print("No model is promoted. Promote the one of your settings with: finetune promote")
        return 0
    print(f"{now.name}, promoted {now.when}: {_told(now)}")
    print(root() / champions.LINK / "model")
    if not whole:
        print(f"NOT WHOLE: {' '.join(problem) if problem else 'it is gone'}. finetune rollback")
    for name, sentences in now.reasons.items():
        print(f"  against the {name}: {' '.join(sentences)}")
    for name, value in now.metrics.items():
        print(f"  {name:<32}{value:>12.6g}")
    print("history")
    for entry in reversed(entries):
        print(f"  {entry.when}  {entry.action:<9} {entry.name}  {_told(entry)}")
    return 0


def root() -> Path:
    """The artifacts folder."""
    return home() / "artifacts"


def _told(entry: ChampionChange) -> str:
    """Verdicts, force and reason in one phrase."""
    parts = [f"{verdict} over the {name}" for name, verdict in entry.verdicts.items()]
    parts += ["forced"] if entry.forced else []
    parts += [f'"{entry.why}"'] if entry.why else []
    return ", ".join(parts)


def _artifacts(session: Session) -> dict[str, Manifest]:
    """The manifests of all stages of these settings, by stage.

    Raises:
        PipelineError: One of them has to run first.
    """
    for plan in session.plans:
        if plan.decision != HIT:
            raise PipelineError(
                f"stage {plan.stage.name} has no artifact for these settings "
                f"({messages.reason(plan)})",
                "Run `finetune run` first, with the same --profile and --set.",
            )
    return {plan.stage.name: plan.manifest for plan in session.plans if plan.manifest}


def _metrics(made: Mapping[str, Manifest]) -> dict[str, float]:
    found = {}
    for stage in (MEASURED, STAGE):
        found.update(made[stage].summary.get("metrics", {}))
    return found


def _gate_of(store: Store, manifest: Manifest) -> Verdict:
    gate = _json(store, manifest, "gate")
    return str(gate["verdict"]), tuple(gate["reasons"])


def against(
    store: Store,
    champion: Mapping[str, str],
    challenger: Mapping[str, Manifest],
    margins: Mapping[str, Any],
) -> Verdict:
    """The challenger's tuned model against the champion's, with reasons.

    Args:
        store: Holds the artifacts of both.
        champion: Stage -> key.
        challenger: Stage -> manifest.
        margins: The gate's settings.
    """
    from tasks.evaluation.gate import stored_evaluations

    old, new = _measured(store, champion), challenger[MEASURED]
    if old is None:
        return INCONCLUSIVE, ("The champion's evaluation is gone, so nothing was compared.",)
    before, after = (_json(store, m, "metrics").get("settings", {}) for m in (old, new))
    if different := stored_evaluations.different_settings(before, after):
        return INCONCLUSIVE, (f"The champion was measured with other settings: {different}.",)
    base = manifests.read(store.folder(BASE, champion[BASE])) if BASE in champion else None
    # losses are comparable only where both models have the same tokens
    same_tokens = (
        base is not None and base.outputs["tokenizer"] == challenger[BASE].outputs["tokenizer"]
    )
    gate = stored_evaluations.decide(
        (_table(store, old, "rows"), _table(store, new, "rows")) if same_tokens else ((), ()),
        (_table(store, old, "generations"), _table(store, new, "generations")),
        margins,
    )
    return gate.verdict, gate.reasons


def _measured(store: Store, chain: Mapping[str, str]) -> Manifest | None:
    return store.find(MEASURED, chain[MEASURED]).manifest if MEASURED in chain else None


def _table(store: Store, manifest: Manifest, name: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    path = store.entry(manifest, name)
    return pq.read_table(path).to_pylist() if path is not None else []


def _json(store: Store, manifest: Manifest, name: str) -> Any:
    path = store.entry(manifest, name)
    return json.loads(path.read_bytes()) if path is not None else {}
