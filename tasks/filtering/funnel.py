"""What the filter did, as counts: for each reason how many rows, which share, how many by this
reason alone, examples."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

EXAMPLES = 3


class Funnel:
    """Counts verdicts one by one; memory does not grow with the rows.

    Examples are the rows whose hash with the rule's name is smallest: a fair draw that is the same
    on every run.
    """

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._alone: Counter[str] = Counter()
        self._nearest: dict[str, tuple[float, float, float]] = {}
        self._examples: dict[str, list[tuple[int, str]]] = {}
        self._sources: dict[str, Counter[str]] = {}
        self.kept = 0
        self.rejected = 0

    def add(self, row_id: str, source: str, reasons: Sequence[Mapping[str, Any]]) -> None:
        """Count one row."""
        counts = self._sources.setdefault(source, Counter())
        counts["rows"] += 1
        if not reasons:
            self.kept += 1
            counts["kept"] += 1
            return
        self.rejected += 1
        for reason in reasons:
            rule = reason["rule"]
            self._rows[rule] += 1
            self._alone[rule] += len(reasons) == 1
            distance = abs(reason["value"] - reason["threshold"])
            self._nearest[rule] = min(
                self._nearest.get(rule, (distance, reason["value"], reason["threshold"])),
                (distance, reason["value"], reason["threshold"]),
            )
            drawn = -int.from_bytes(
                blake2b(f"{rule}\0{row_id}".encode(), digest_size=8).digest(), "big"
            )
            examples = self._examples.setdefault(rule, [])
            (heapq.heappush if len(examples) < EXAMPLES else heapq.heappushpop)(
                examples, (drawn, row_id)
            )

    @property
    def counts(self) -> dict[str, int]:
        """Rows against each rule, most first."""
        return dict(sorted(self._rows.items(), key=lambda item: (-item[1], item[0])))

    def nearest(self, rule: str) -> tuple[float, float]:
        """(value, threshold) of the rejected row that came nearest to passing a rule."""
        _, value, threshold = self._nearest[rule]
        return value, threshold

    def to_json(self, rules: Sequence[str]) -> dict[str, Any]:
        """The funnel, with the rules in the given order, those without a row included."""
        total = self.kept + self.rejected
        return {
            "rows": total,
            "kept": self.kept,
            "rejected": self.rejected,
            "reasons": [
                {
                    "rule": rule,
                    "rows": self._rows[rule],
                    "share": round(self._rows[rule] / total, 6) if total else 0.0,
                    "only_this_rule": self._alone[rule],
                    "examples": [
                        row_id for _, row_id in sorted(self._examples.get(rule, []), reverse=True)
                    ],
                }
                for rule in rules
            ],
            "sources": {
                name: {"rows": counts["rows"], "kept": counts["kept"]}
                for name, counts in self._sources.items()
            },
        }
