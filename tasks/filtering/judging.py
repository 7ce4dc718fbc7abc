"""A batch of rows -> the reasons against each and the keys for finding duplicates; pure, so
processes can share it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tasks.core.parallel import without_gc
from tasks.core.schemas import REASON
from tasks.filtering.duplicates import KEY_BYTES, text_key
from tasks.filtering.rules import Rule, build_rules
from tasks.filtering.sample import Sample

NOTE_CHARACTERS = 200
COLUMNS = ["row_id", "instruction", "input", "output", "kind", "licence"]
VERDICTS = pa.schema(
    [
        ("row_id", pa.string()),
        ("reasons", pa.list_(REASON)),
        ("instruction", pa.binary(KEY_BYTES)),
        ("output", pa.binary(KEY_BYTES)),
    ]
)

Reason = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Rows (`COLUMNS`) and the settings of the rules."""

    rows: pa.Table
    settings: Mapping[str, Any]


def judge(batch: Batch) -> pa.Table:
    """Verdicts (`VERDICTS`) on the rows of a batch, in their order."""
    rules = build_rules(batch.settings)
    verdicts: list[dict[str, Any]] = []
    with without_gc():
        for row in batch.rows.to_pylist():
            row_id = row.pop("row_id")
            sample = Sample(**row)
            asked = f"{sample.instruction}\0{sample.input}"
            verdicts.append(
                {
                    "row_id": row_id,
                    "reasons": reasons_against(sample, rules),
                    "instruction": text_key(asked, is_python=False),
                    "output": text_key(sample.output, is_python=sample.parsed[0] is not None),
                }
            )
    return pa.Table.from_pylist(verdicts, schema=VERDICTS)


def reasons_against(sample: Sample, rules: Sequence[Rule]) -> list[Reason]:
    """Every rule that a row fails, with the measured value."""
    reasons = []
    for rule in rules:
        if sample.kind in rule.kinds and rule.fails(value := rule.measure(sample)):
            note = rule.note(sample)[:NOTE_CHARACTERS] if rule.note else ""
            reasons.append(
                {
                    "rule": rule.name,
                    "value": float(value),
                    "threshold": float(rule.threshold),
                    "note": note,
                }
            )
    return reasons
