"""What the report shows of other stages: training, filter funnel, licences and lineage.

A file that is missing or torn leaves its place in the report empty.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.rows.data_card import DataCard
from tasks.evaluation.report import lineage
from tasks.evaluation.report.lineage import LineageEntry


@dataclass(frozen=True)
class OtherStages:
    """What other stages left; empty where there is nothing.

    Attributes:
        curve: Records of metrics.jsonl.
        training: training.json.
        funnel: funnel.json.
        licences: (Licence, rows) of the training rows.
        lineage: The artifacts that the evaluation used.
        split: How the rows were split, in one sentence.
    """

    curve: Sequence[Mapping[str, Any]] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    funnel: Mapping[str, Any] = field(default_factory=dict)
    licences: Sequence[tuple[str, int]] = ()
    lineage: Sequence[LineageEntry] = ()
    split: str = ""

    def funnel_bars(self) -> dict[str, Any] | None:
        """Rows in, rows kept, and the rules by the number of rows that they removed."""
        rows_in, kept = self.funnel.get("rows"), self.funnel.get("kept")
        if not isinstance(rows_in, int) or not isinstance(kept, int) or not rows_in:
            return None
        reasons = [
            r for r in self.funnel.get("reasons", ()) if isinstance(r, dict) and r.get("rows")
        ]
        return {
            "rows_in": rows_in,
            "kept": kept,
            "kept_percent": round(100 * kept / rows_in, 1),
            "reasons": [
                {
                    "rule": str(r["rule"]).replace("_", " "),
                    "rows": r["rows"],
                    "percent": round(100 * r["rows"] / rows_in, 2),
                }
                for r in sorted(reasons, key=lambda r: (-r["rows"], str(r["rule"])))
            ],
        }

    def licence_shares(self) -> list[tuple[str, int, str]]:
        """(Licence, rows, percent) of the training rows."""
        total = sum(rows for _, rows in self.licences) or 1
        return [(n or "unknown", rows, f"{100 * rows / total:.1f}") for n, rows in self.licences]


def read_other_stages(paths: Mapping[str, Path]) -> OtherStages:
    """Read what there is.

    Args:
        paths: "stage.entry" -> file or folder.
    """
    lines = _text(paths.get("train.metrics")).splitlines()
    records = [record for line in lines if isinstance(record := _parsed(line), dict)]
    training = _parsed(_text(paths.get("train.training")))
    funnel = _parsed(_text(paths.get("filter.funnel")))
    card = (
        DataCard.read(paths["tokenize.data_card"]) if "tokenize.data_card" in paths else DataCard()
    )
    return OtherStages(
        curve=records,
        training=training if isinstance(training, dict) else {},
        funnel=funnel if isinstance(funnel, dict) else {},
        licences=card.licences,
        lineage=lineage.trace(paths.values()),
        split=card.split,
    )


def _text(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
