"""The files of the artifact: outputs of the stage, tables, costs and the report.

metrics.json and gate.json are outputs: the same measurements give the same bytes. The others are
for the user, except that promotion reads the tables of rows and texts.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.gate import verdict
from tasks.evaluation.metrics import summary
from tasks.evaluation.report import page
from tasks.evaluation.report.other_stages import read_other_stages
from tasks.evaluation.report.subject import UNKNOWN, Subject
from tasks.evaluation.results import Attempts, Evaluation

MODELS = ("base", "tuned")
ROW_COLUMNS = pa.schema(
    [
        ("row_set", pa.string()),
        ("row_id", pa.string()),
        ("cluster", pa.string()),
        ("tokens", pa.int64()),
        ("text_bytes", pa.int64()),
        ("base_loss_sum", pa.float64()),
        ("tuned_loss_sum", pa.float64()),
        ("base_correct", pa.int64()),
        ("tuned_correct", pa.int64()),
        ("ending_tokens", pa.int64()),
        ("base_ending_loss_sum", pa.float64()),
        ("tuned_ending_loss_sum", pa.float64()),
        ("base_ending_correct", pa.int64()),
        ("tuned_ending_correct", pa.int64()),
    ]
)
GENERATION_COLUMNS = pa.schema(
    [
        ("suite", pa.string()),  # "samples": held-out prompts without tests
        ("problem_id", pa.string()),
        ("style", pa.string()),
        ("model", pa.string()),  # "base" or "tuned"
        ("attempt", pa.int32()),
        ("prompt", pa.string()),
        ("reference", pa.string()),  # "" for problems with tests
        ("text", pa.string()),
        ("tokens", pa.int64()),
        ("stopped", pa.bool_()),
        ("verdict", pa.string()),  # the outcome of grading
        ("detail", pa.string()),
    ]
)


COMPLETION_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("span_id", "cluster", "language", "size", "style")),
        *((name, pa.string()) for name in ("prompt", "reference")),
        ("text_bytes", pa.int64()),
        ("model", pa.string()),  # "base" or "tuned"
        ("text", pa.string()),
        ("tokens", pa.int64()),
        ("stopped", pa.bool_()),
        ("exact", pa.bool_()),
        ("similarity", pa.float64()),
        ("first_line", pa.bool_()),
        ("loss_sum", pa.float64()),
    ]
)


def write(
    evaluation: Evaluation,
    gate: verdict.Gate,
    shows: Mapping[str, Path],
    out: Path,
    subject: Subject = UNKNOWN,
) -> None:
    """Write all files of an evaluation.

    Args:
        evaluation: What was measured.
        gate: Its verdict.
        shows: Files of other stages for the report; any may be missing.
        out: Empty folder.
        subject: Of the report.
    """
    _json(out / "metrics.json", summary.metrics(evaluation))
    _json(out / "gate.json", verdict.to_dict(gate))
    _json(out / "costs.json", [asdict(cost) for cost in evaluation.costs])
    _table(out / "rows.parquet", row_records(evaluation), ROW_COLUMNS)
    _table(out / "generations.parquet", generation_records(evaluation), GENERATION_COLUMNS)
    _table(out / "completions.parquet", completion_records(evaluation), COMPLETION_COLUMNS)
    others = read_other_stages(shows)
    for name, render in (("report.html", page.html), ("report.md", page.markdown)):
        (out / name).write_text(render(evaluation, gate, others, subject), encoding="utf-8")


def row_records(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One record for each row of each row set."""
    return [
        {"row_set": rows.name, **asdict(row)} for rows in evaluation.row_sets for row in rows.rows
    ]


def generation_records(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One record for each generated text."""
    records: list[dict[str, Any]] = []

    def add(head: dict[str, Any], attempts: Mapping[str, Attempts]) -> None:
        records.extend(
            {**head, "model": model, "attempt": number, "verdict": attempt.outcome}
            | {name: getattr(attempt, name) for name in ("text", "tokens", "stopped", "detail")}
            for model, tried in attempts.items()
            for number, attempt in enumerate(tried)
        )

    for s in evaluation.samples:
        head = {"suite": "samples", "problem_id": s.row_id, "style": "prompt"}
        head |= {"prompt": s.prompt, "reference": s.reference}
        add(head, {"base": (s.base,), "tuned": (s.tuned,)})
    for p in evaluation.problems:
        names = ("suite", "problem_id", "style", "prompt", "reference")
        add({name: getattr(p, name) for name in names}, {"base": p.base, "tuned": p.tuned})
    return records


def completion_records(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Two records for each completed span."""
    return [
        {
            **{f.name: getattr(found, f.name) for f in fields(found) if f.name not in MODELS},
            "model": model,
            **asdict(getattr(found, model)),
        }
        for found in evaluation.completions
        for model in MODELS
    ]


def _json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _table(path: Path, records: list[dict[str, Any]], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(records, schema=schema), path, compression="zstd")
