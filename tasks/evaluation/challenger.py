"""Compares a challenger with the champion, from what their evaluations stored.

The comparison itself is in `gate.stored_evaluations`; this module finds both evaluations in the
store and decides what of them can be compared.
"""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from tasks.core.cache import manifest as manifests
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.evaluation.gate import stored_evaluations
from tasks.evaluation.gate.stored_evaluations import Records

MEASURED, BASE = "evaluate", "base"
INCONCLUSIVE = "inconclusive"
Verdict = tuple[str, tuple[str, ...]]


def against(
    store: Store,
    champion: Mapping[str, str],
    challenger: Mapping[str, Manifest],
    margins: Mapping[str, Any],
) -> Verdict:
    """Verdict and reasons of the gate for the challenger's tuned model against the champion's.

    Args:
        store: Contains the artifacts of both.
        champion: Stage -> key.
        challenger: Stage -> manifest.
        margins: Settings of the gate.
    """
    old, new = _measured(store, champion), challenger[MEASURED]
    if old is None:
        return INCONCLUSIVE, (
            "The champion's evaluation no longer exists, so nothing was compared.",
        )
    before, after = (read_json(store, m, "metrics").get("settings", {}) for m in (old, new))
    if other := stored_evaluations.different_settings(before, after):
        return INCONCLUSIVE, (f"The champion was measured with other settings: {other}.",)
    base = manifests.read(store.folder(BASE, champion[BASE])) if BASE in champion else None
    same_tokens = (
        base is not None and base.outputs["tokenizer"] == challenger[BASE].outputs["tokenizer"]
    )
    rows = (_table(store, old, "rows"), _table(store, new, "rows")) if same_tokens else ((), ())
    texts = _table(store, old, "generations"), _table(store, new, "generations")
    spans = _table(store, old, "completions"), _table(store, new, "completions")
    gate = stored_evaluations.decide(rows, texts, spans if same_tokens else ((), ()), margins)
    return gate.verdict, gate.reasons


def _measured(store: Store, chain: Mapping[str, str]) -> Manifest | None:
    return store.find(MEASURED, chain[MEASURED]).manifest if MEASURED in chain else None


def _table(store: Store, manifest: Manifest, name: str) -> Records:
    path = store.entry(manifest, name)
    return pq.read_table(path).to_pylist() if path is not None else []


def read_json(store: Store, manifest: Manifest, name: str) -> Any:
    """A JSON file of an artifact; {} if it does not exist."""
    path = store.entry(manifest, name)
    return json.loads(path.read_bytes()) if path is not None else {}
