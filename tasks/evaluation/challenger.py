"""Comparison of a challenger with the champion, from the stored tables of their evaluations.

Nothing is run again: the rows and problems that both evaluations measured are joined, and the
gate's own statistics compare the two tuned models in pairs, with the champion in place of the base.
"""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from tasks.core.cache import manifest as manifests
from tasks.core.cache.manifest import Manifest
from tasks.core.cache.store import Store
from tasks.evaluation.gate import Gate, decide
from tasks.evaluation.results import Attempt, Evaluation, ProblemResult, RowResult, RowSet

MEASURED, BASE = "evaluate", "base"
INCONCLUSIVE = "inconclusive"
UNTOUCHED = "untouched code"
# settings of an evaluation that may differ between two models that are compared
HARMLESS = frozenset(
    {
        "resamples",
        "loss_margin_percent",
        "pass_margin_points",
        "seed",
        "generation_batch",
        "window_tokens",
    }
)
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
    names = sorted((before.keys() | after.keys()) - HARMLESS)
    if other := [n for n in names if before.get(n) != after.get(n)]:
        pairs = ", ".join(f"{n} {before.get(n)} and {after.get(n)}" for n in other)
        return INCONCLUSIVE, (f"The champion was measured with other settings: {pairs}.",)
    base = manifests.read(store.folder(BASE, champion[BASE])) if BASE in champion else None
    same_tokens = (
        base is not None and base.outputs["tokenizer"] == challenger[BASE].outputs["tokenizer"]
    )
    gate = _decide(store, old, new, same_tokens=same_tokens, margins=margins)
    return gate.verdict, gate.reasons


def _measured(store: Store, chain: Mapping[str, str]) -> Manifest | None:
    return store.find(MEASURED, chain[MEASURED]).manifest if MEASURED in chain else None


def _decide(
    store: Store, old: Manifest, new: Manifest, *, same_tokens: bool, margins: Mapping[str, Any]
) -> Gate:
    """Apply the gate to both evaluations; losses are comparable only with the same tokenizer."""
    rows = (
        paired_rows(_table(store, old, "rows"), _table(store, new, "rows")) if same_tokens else ()
    )
    texts = [_table(store, m, "generations") for m in (old, new)]
    return decide(Evaluation(row_sets=rows, problems=paired_problems(*texts)), **margins)


def paired_rows(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> tuple[RowSet, ...]:
    """Rows that both evaluations measured, with the champion in place of the base."""

    def name(row: Mapping[str, Any]) -> tuple[str, str, int]:
        return str(row["row_set"]), str(row["row_id"]), int(row["tokens"])

    known = {name(row): row for row in old}
    sets: dict[str, list[RowResult]] = {}
    for row in new:
        if (before := known.get(name(row))) is not None:
            result = RowResult(
                row_id=row["row_id"],
                cluster=row["cluster"],
                tokens=row["tokens"],
                text_bytes=row["text_bytes"],
                base_loss_sum=before["tuned_loss_sum"],
                tuned_loss_sum=row["tuned_loss_sum"],
                base_correct=before["tuned_correct"],
                tuned_correct=row["tuned_correct"],
            )
            sets.setdefault(str(row["row_set"]), []).append(result)
    return tuple(RowSet(n, tuple(rows), probe=n == UNTOUCHED) for n, rows in sets.items())


def paired_problems(
    old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> tuple[ProblemResult, ...]:
    """Problems with tests that both models got with the same prompt."""

    def tuned(table: list[dict[str, Any]]) -> dict[tuple[str, str, str, str], list[Attempt]]:
        found: dict[tuple[str, str, str, str], list[Attempt]] = {}
        for row in table:
            if row["model"] == "tuned" and row["verdict"]:
                name = (row["suite"], row["problem_id"], row["style"], row["prompt"])
                attempt = Attempt("", row["tokens"], row["stopped"], row["verdict"])
                found.setdefault(name, []).append(attempt)
        return found

    before, after = tuned(old), tuned(new)
    return tuple(
        ProblemResult(suite, problem, style, prompt, tuple(attempts), tuple(after[name]))
        for name, attempts in before.items()
        if name in after
        for suite, problem, style, prompt in [name]
    )


def _table(store: Store, manifest: Manifest, name: str) -> list[dict[str, Any]]:
    path = store.entry(manifest, name)
    return pq.read_table(path).to_pylist() if path is not None else []


def read_json(store: Store, manifest: Manifest, name: str) -> Any:
    """A JSON file of an artifact; {} if it does not exist."""
    path = store.entry(manifest, name)
    return json.loads(path.read_bytes()) if path is not None else {}
