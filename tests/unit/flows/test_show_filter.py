import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.commands.show.filtered import downstream, funnel_lines, history_lines

FUNNEL: dict[str, Any] = {
    "rows": 1000,
    "kept": 600,
    "rejected": 400,
    "reasons": [
        {"rule": "lines", "setting": "filter.max_lines", "rows": 0, "share": 0.0}
        | {"only_this_rule": 0, "examples": []},
        {"rule": "licence", "setting": "filter.licences", "rows": 400, "share": 0.4}
        | {"only_this_rule": 390, "examples": ["abc"]},
    ],
    "sources": {"mine": {"rows": 1000, "kept": 600, "rejected": 400}},
    "redacted": {"email": {"spans": 3, "rows": 2}},
    "what_if": {"licence": {"-20%": {"threshold": 1, "kept": 550}, "+20%": {"kept": 610}}},
    "benchmarks": [{"name": "humaneval", "tasks": 0, "missing": "not installed"}],
    "contamination": {"rows": 0, "tasks": 0, "hits": []},
    "duplicates": {"clusters": 0, "largest": 1, "verified_pairs": 0},
}


def test_funnel_tells_counts_what_if_and_missing_benchmarks() -> None:
    text = "\n".join(funnel_lines(FUNNEL))
    for part in (
        "600   60.00 %",
        "licence",
        "390",
        "-50",
        "+10",
        "filter.licences",
        "not installed",
    ):
        assert part in text
    assert "rejected no row, or off: lines" in text and "abc" in text


def test_funnel_fits_a_terminal_without_long_lines_of_numbers() -> None:
    assert max(map(len, funnel_lines(FUNNEL))) <= 80


ROW = {
    "row_id": "b",
    "source": "mine",
    "path": "a.jsonl",
    "line": 3,
    "output": "text",
    "cluster": "a",
    "redactions": json.dumps([["output", "email", 1, 5]]),
}
REASON = {"rule": "near_duplicate", "value": 0.81, "threshold": 0.7, "note": "Jaccard 0.810 with a"}


def test_history_shows_origin_reasons_twin_redactions_and_values() -> None:
    measured = {"row_id": "b", "lines": 1.0, "near_duplicate": 0.81, "near_twin": "a"}
    text = "\n".join(history_lines(ROW | {"reasons": [REASON]}, measured, []))
    for part in (
        "rejected",
        "a.jsonl",
        "near_duplicate",
        "value 0.81, threshold 0.7",
        "a (Jaccard 0.810)",
        "email in output, characters 1-5",
    ):
        assert part in text
    assert "split" not in text


def test_history_of_a_kept_row_shows_its_split() -> None:
    assert "  split             test" in history_lines(ROW, None, ["test"])


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """Artifacts of prompt and tokenize with a row for each end that a row can come to."""
    prompt, tokenize = tmp_path / "prompt", tmp_path / "tokenize"
    prompt.mkdir()
    tokenize.mkdir()
    for split, ids in {"train": ["t", "long"], "validation": ["v"], "test": []}.items():
        table = pa.table({"row_id": pa.array(ids, pa.string())})
        pq.write_table(table, prompt / f"{split}.parquet")
    (prompt / "problems.jsonl").write_text(json.dumps({"task_id": "held-out/p"}) + "\n")
    hit = {"row_id": "c", "layer": "syntax", "task_id": "held-out/p", "evidence": "function f"}
    (prompt / "contaminated.jsonl").write_text(json.dumps(hit) + "\n")
    dropped = {"row_id": ["long"], "split": ["train"], "reason": ["too_long"]}
    pq.write_table(
        pa.table(dropped | {"value": [900.0], "threshold": [512.0]}), tokenize / "dropped.parquet"
    )
    return prompt, tokenize


@pytest.mark.parametrize(
    ("row_id", "told"),
    [
        ("t", ["train"]),
        ("v", ["validation"]),
        ("long", ["train", "dropped by tokenize: too_long, value 900, threshold 512"]),
        ("p", ["none: held out as an evaluation problem"]),
        ("c", ["none: contains held-out/p (syntax: function f)"]),
        ("x", ["none: over a cap, or similar to rows of another split or to a problem"]),
    ],
)
def test_use_of_a_kept_row_in_later_stages(made, row_id, told) -> None:
    assert downstream(row_id, *made) == told


def test_before_those_stages_ran_the_split_is_unknown(made) -> None:
    assert downstream("t", None, None) == ["unknown: the stage prompt has not run yet"]
    assert downstream("t", made[0], None) == ["train"]
