"""What the filter did, as counts: for each reason how many rows, which share, how many by this
reason alone, examples; sources, redactions and contamination."""

import heapq
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import pyarrow as pa

EXAMPLES = 5
MAX_HITS = 1_000  # contaminated rows that are listed one by one
CONTAMINATION = "contamination_"


class Funnel:
    """Counts verdicts a batch at a time; memory does not grow with the rows.

    Examples are the rows whose hash with the rule's name is smallest: a fair draw that is the same
    on every run.
    """

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._alone: Counter[str] = Counter()
        self._nearest: dict[str, tuple[float, float, float]] = {}
        self._examples: dict[str, list[tuple[int, str]]] = {}
        self._sources: dict[str, Counter[str]] = {}
        self._spans: Counter[str] = Counter()
        self._redacted_rows: Counter[str] = Counter()
        self._hits: list[dict[str, Any]] = []
        self._tasks: dict[str, set[str]] = {}
        self.contaminated = 0
        self.kept = 0
        self.rejected = 0

    def add_batch(
        self,
        table: pa.Table,
        reasons: Sequence[Sequence[Mapping[str, Any]]],
        redactions: Sequence[str],
    ) -> None:
        """Count rows (`row_id`, `source`), the reasons against each and their redactions."""
        row_ids, sources = (table.column(name).to_pylist() for name in ("row_id", "source"))
        for source, rows in Counter(sources).items():
            self._sources.setdefault(source, Counter())["rows"] += rows
        for row_id, source, own in zip(row_ids, sources, reasons, strict=True):
            if own:
                self._reject(row_id, own)
            else:
                self.kept += 1
                self._sources[source]["kept"] += 1
        for spans in filter(None, redactions):
            kinds = [span[1] for span in json.loads(spans)]
            self._spans.update(kinds)
            self._redacted_rows.update(set(kinds))

    def _reject(self, row_id: str, reasons: Sequence[Mapping[str, Any]]) -> None:
        """Count one row and what stands against it."""
        self.rejected += 1
        for rule in {reason["rule"] for reason in reasons}:
            self._rows[rule] += 1
            self._alone[rule] += len(reasons) == 1
            self._draw(rule, row_id)
        for reason in reasons:
            self._note_nearest(reason)
        hits = [r for r in reasons if r["rule"].startswith(CONTAMINATION)]
        self.contaminated += bool(hits)
        for hit in hits:
            self._note_hit(row_id, hit)

    def _draw(self, rule: str, row_id: str) -> None:
        drawn = -int.from_bytes(
            blake2b(f"{rule}\0{row_id}".encode(), digest_size=8).digest(), "big"
        )
        examples = self._examples.setdefault(rule, [])
        push = heapq.heappush if len(examples) < EXAMPLES else heapq.heappushpop
        push(examples, (drawn, row_id))

    def _note_nearest(self, reason: Mapping[str, Any]) -> None:
        told = (abs(reason["value"] - reason["threshold"]), reason["value"], reason["threshold"])
        self._nearest[reason["rule"]] = min(self._nearest.get(reason["rule"], told), told)

    def _note_hit(self, row_id: str, reason: Mapping[str, Any]) -> None:
        task_id, _, evidence = reason["note"].partition(": ")
        layer = reason["rule"].removeprefix(CONTAMINATION)
        self._tasks.setdefault(layer, set()).add(task_id)
        if len(self._hits) < MAX_HITS:
            value = round(reason["value"], 4)
            hit = {"row_id": row_id, "layer": layer, "task_id": task_id}
            self._hits.append(hit | {"value": value, "evidence": evidence})

    @property
    def counts(self) -> dict[str, int]:
        """Rows against each rule, most first."""
        return dict(sorted(self._rows.items(), key=lambda item: (-item[1], item[0])))

    @property
    def redacted(self) -> dict[str, int]:
        """Redacted spans of each type, most first."""
        return dict(sorted(self._spans.items(), key=lambda item: (-item[1], item[0])))

    def nearest(self, rule: str) -> tuple[float, float]:
        """(value, threshold) of the rejected row that came nearest to passing a rule."""
        _, value, threshold = self._nearest[rule]
        return value, threshold

    def to_json(self, rules: Mapping[str, str]) -> dict[str, Any]:
        """The funnel.

        Args:
            rules: {rule: setting that moves it}, in the order of the report; rules without a row
                are told too.
        """
        total = self.kept + self.rejected
        return {
            "rows": total,
            "kept": self.kept,
            "rejected": self.rejected,
            "reasons": [self._reason(rule, setting, total) for rule, setting in rules.items()],
            "sources": {
                name: {"rows": c["rows"], "kept": c["kept"], "rejected": c["rows"] - c["kept"]}
                for name, c in self._sources.items()
            },
            "redacted": {
                kind: {"spans": spans, "rows": self._redacted_rows[kind]}
                for kind, spans in self.redacted.items()
            },
            "contamination": {
                "rows": self.contaminated,
                "tasks": len(set().union(*self._tasks.values())),
                "tasks_by_layer": {layer: len(ids) for layer, ids in sorted(self._tasks.items())},
                "hits": self._hits,
            },
        }

    def _reason(self, rule: str, setting: str, total: int) -> dict[str, Any]:
        examples = sorted(self._examples.get(rule, []), reverse=True)
        return {
            "rule": rule,
            "setting": f"filter.{setting}",
            "rows": self._rows[rule],
            "share": round(self._rows[rule] / total, 6) if total else 0.0,
            "only_this_rule": self._alone[rule],
            "examples": [row_id for _, row_id in examples],
        }
