"""The funnel: rows, share, rows rejected by this reason alone and examples for each reason; counts
per source, redactions and contamination."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.core.rows.hash_rank import hash_rank
from tasks.filtering.rules.licenses import LICENCE

EXAMPLES = 5
SHOWN_LICENCES = 4
HEAVY = 0.5  # share of a source from which a rule that rejects it is reported
MAX_HITS = 1_000  # hits listed one by one
CONTAMINATION = "contamination_"

Rows = NDArray[np.int64]
Draws = NDArray[np.uint64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Against:
    """All reasons of a batch, one entry each.

    Attributes:
        rules: Names.
        codes: Index of the reason's rule in `rules`.
        rows: Index of the row in the batch.
        values: Measured values.
        thresholds: Thresholds of the rules.
        notes: What the reasons say besides the values.
    """

    rules: list[str]
    codes: Rows
    rows: Rows
    values: Floats
    thresholds: Floats
    notes: pa.Array

    @classmethod
    def of(cls, reasons: pa.ListArray, counts: Rows) -> "_Against":
        """The reasons of rows with `counts` reasons each."""
        flat = reasons.flatten()
        rule = flat.field("rule").dictionary_encode()
        return cls(
            rule.dictionary.to_pylist(),
            rule.indices.to_numpy().astype(np.int64),
            np.repeat(np.arange(len(counts)), counts),
            flat.field("value").to_numpy(),
            flat.field("threshold").to_numpy(),
            flat.field("note"),
        )


def licences_line(licences: Mapping[str, int]) -> str:
    """Rejected licenses, and the settings that allow them."""
    shown = list(licences)[:SHOWN_LICENCES]
    named = ", ".join(f"{name} ({licences[name]:,})" for name in shown)
    more = f" and {len(licences) - len(shown)} more" if len(licences) > len(shown) else ""
    known = [name for name in shown if name != "unknown"]
    ways = [f"filter.more_licences: [{', '.join(known)}] allows them"] if known else []
    if "unknown" in licences:
        ways.append("the field `licence` of the source states an unknown one")
    return f"{named}{more}; {', '.join(ways)}"


def heavy_line(found: Mapping[str, Any]) -> str:
    """One entry of `Funnel.heavy` as a phrase."""
    named = licences_line(found["licences"]) if found["licences"] else found["setting"]
    gain = f"without it {found['kept_without']:,} are kept"
    if found["kept_without"] == found.get("kept"):
        gain = "alone it changes nothing: other rules remove the same rows"
    return (
        f"{found['rule']} removes {found['rows']:,} of {found['of']:,} rows of "
        f"{found['source']}: {named}, {gain}"
    )


class Funnel:
    """Counts decisions a batch at a time; memory does not grow with the rows.

    Examples are the rows with the smallest random numbers. A number depends on the row's content
    and the rule's name only: a fair draw that is the same in every run.
    """

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._alone: Counter[str] = Counter()
        self._nearest: dict[str, tuple[float, float, float]] = {}
        self._examples: dict[str, list[tuple[int, str]]] = {}
        self._sources: dict[str, Counter[str]] = {}
        self._by_source: Counter[tuple[str, str]] = Counter()  # (source, rule) -> rows
        self._alone_by_source: Counter[tuple[str, str]] = Counter()
        self._licences: Counter[tuple[str, str]] = Counter()  # (source, rejected license) -> rows
        self._spans: Counter[str] = Counter()
        self._redacted_rows: Counter[str] = Counter()
        self._hits: list[dict[str, Any]] = []
        self._problems: dict[str, set[str]] = {}
        self.contaminated = 0
        self.kept = 0
        self.rejected = 0

    def add_batch(
        self, table: pa.Table, reasons: pa.ListArray, redactions: pa.ChunkedArray, draws: Draws
    ) -> None:
        """Count rows.

        Args:
            table: `row_id` and `source` of each.
            reasons: Of each, lists of `row_schema.REASON`.
            redactions: Of each, as in `row_schema.KEPT`.
            draws: A number for each that depends on its content, to draw examples.
        """
        counts = pc.list_value_length(reasons).to_numpy()
        kept = int(np.count_nonzero(counts == 0))
        self.kept += kept
        self.rejected += len(counts) - kept
        self._count_sources(table.column("source"), counts == 0)
        against = _Against.of(reasons, counts)
        row_ids = table.column("row_id")
        sources = table.column("source").combine_chunks().dictionary_encode()
        names, source_of = sources.dictionary.to_pylist(), np.asarray(sources.indices)
        for code, rule in enumerate(against.rules):
            own = against.codes == code
            rows = np.unique(against.rows[own])
            self._rows[rule] += len(rows)
            alone = rows[counts[rows] == 1]
            self._alone[rule] += len(alone)
            for counter, which in ((self._by_source, rows), (self._alone_by_source, alone)):
                for source, number in enumerate(np.bincount(source_of[which]).tolist()):
                    counter[names[source], rule] += number
            if rule == LICENCE.name:
                own_notes = against.notes.filter(pa.array(own)).to_pylist()
                places = source_of[against.rows[own]].tolist()
                for source, note in zip(places, own_notes, strict=True):
                    self._licences[names[source], note] += 1
            self._draw(rule, row_ids, rows, draws[rows])
            self._note_nearest(rule, against.values[own], against.thresholds[own])
        self._note_hits(row_ids, reasons, against)
        for spans in redactions.filter(pc.not_equal(redactions, "")).to_pylist():
            kinds = [span[1] for span in json.loads(spans)]
            self._spans.update(kinds)
            self._redacted_rows.update(set(kinds))

    def _count_sources(self, sources: pa.ChunkedArray, kept: NDArray[np.bool_]) -> None:
        for which, name in ((sources, "rows"), (sources.filter(pa.array(kept)), "kept")):
            for counted in which.value_counts().to_pylist():
                own = self._sources.setdefault(counted["values"], Counter())
                own[name] += counted["counts"]

    def _draw(self, rule: str, row_ids: pa.ChunkedArray, rows: Rows, draws: Draws) -> None:
        """Keep the rows with the smallest numbers as examples of a rule."""
        own = hash_rank(rule)
        drawn = draws ^ np.frombuffer(own, dtype="<u8")  # another order for each rule
        least = np.argsort(drawn, kind="stable")[:EXAMPLES]
        names = row_ids.take(pa.array(rows[least])).to_pylist()
        new = zip(drawn[least].tolist(), names, strict=True)
        self._examples[rule] = sorted([*self._examples.get(rule, []), *new])[:EXAMPLES]

    def _note_nearest(self, rule: str, values: Floats, thresholds: Floats) -> None:
        distance = np.abs(values - thresholds)
        first = np.lexsort((thresholds, values, distance))[0]
        new = (float(distance[first]), float(values[first]), float(thresholds[first]))
        self._nearest[rule] = min(self._nearest.get(rule, new), new)

    def _note_hits(
        self, row_ids: pa.ChunkedArray, reasons: pa.ListArray, against: "_Against"
    ) -> None:
        """Record the problems that rows hold, in the order of the rows."""
        layers = [rule.startswith(CONTAMINATION) for rule in against.rules]
        places = np.flatnonzero(np.array(layers, dtype=bool)[against.codes])
        rows = against.rows[places]
        self.contaminated += len(np.unique(rows))
        hits = reasons.flatten().take(pa.array(places)).to_pylist()
        names = row_ids.take(pa.array(rows)).to_pylist()
        for row_id, reason in zip(names, hits, strict=True):
            self._note_hit(row_id, reason)

    def _note_hit(self, row_id: str, reason: Mapping[str, Any]) -> None:
        problem_id, _, evidence = reason["note"].partition(": ")
        layer = reason["rule"].removeprefix(CONTAMINATION)
        self._problems.setdefault(layer, set()).add(problem_id)
        if len(self._hits) < MAX_HITS:
            value = round(reason["value"], 4)
            hit = {"row_id": row_id, "layer": layer, "task_id": problem_id}
            self._hits.append(hit | {"value": value, "evidence": evidence})

    @property
    def counts(self) -> dict[str, int]:
        """Rows against each rule, most first."""
        return dict(sorted(self._rows.items(), key=lambda item: (-item[1], item[0])))

    @property
    def redacted(self) -> dict[str, int]:
        """Redacted spans of each type, most first."""
        return dict(sorted(self._spans.items(), key=lambda item: (-item[1], item[0])))

    def heavy(self, rules: Mapping[str, str]) -> list[dict[str, Any]]:
        """Rules that reject more than half of a source, the heaviest first, each with its setting
        and the rows of the source that would be kept without it.

        Args:
            rules: {reason: setting that moves it}.
        """
        found = [
            {
                "source": source,
                "rule": rule,
                "setting": f"filter.{rules[rule]}",
                "rows": number,
                "of": self._sources[source]["rows"],
                "licences": self.licences(source) if rule == LICENCE.name else {},
                "kept": self._sources[source]["kept"],
                "kept_without": self._sources[source]["kept"] + self._alone_by_source[source, rule],
            }
            for (source, rule), number in self._by_source.items()
            if number > HEAVY * self._sources[source]["rows"]
        ]
        return sorted(found, key=lambda f: (-f["rows"] / f["of"], f["source"], f["rule"]))

    def licences(self, source: str | None = None) -> dict[str, int]:
        """Rows rejected for their license, by license, most first; of one source or of all."""
        found: Counter[str] = Counter()
        for (name, licence), number in self._licences.items():
            if source in (None, name):
                found[licence] += number
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def nearest(self, rule: str) -> tuple[float, float]:
        """(value, threshold) of the rejected row that was closest to passing a rule."""
        _, value, threshold = self._nearest[rule]
        return value, threshold

    def to_json(self, rules: Mapping[str, str]) -> dict[str, Any]:
        """The funnel.

        Args:
            rules: {reason: setting that moves it}, in the order of the report; reasons without a
                row are included.
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
            "heavy": self.heavy(rules),
            "redacted": {
                kind: {"spans": spans, "rows": self._redacted_rows[kind]}
                for kind, spans in self.redacted.items()
            },
            "contamination": {
                "rows": self.contaminated,
                "tasks": len(set().union(*self._problems.values())),
                "tasks_by_layer": {
                    layer: len(ids) for layer, ids in sorted(self._problems.items())
                },
                "hits": self._hits,
            },
        }

    def _reason(self, rule: str, setting: str, total: int) -> dict[str, Any]:
        return {
            "rule": rule,
            "setting": f"filter.{setting}",
            "rows": self._rows[rule],
            "share": round(self._rows[rule] / total, 6) if total else 0.0,
            "only_this_rule": self._alone[rule],
            "examples": [row_id for _, row_id in self._examples.get(rule, [])],
        }
