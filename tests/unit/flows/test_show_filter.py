import json
from typing import Any

from flows.show_filter import funnel_lines, story_lines

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
        "600   60.00%",
        "licence",
        "390",
        "-50",
        "+10",
        "filter.licences",
        "not installed",
    ):
        assert part in text
    assert "no row against lines" in text and "abc" in text


def test_funnel_fits_a_terminal_without_long_lines_of_numbers() -> None:
    assert max(map(len, funnel_lines(FUNNEL))) <= 120


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


def test_story_tells_origin_reasons_twin_redactions_and_values() -> None:
    measured = {"row_id": "b", "lines": 1.0, "near_duplicate": 0.81, "near_twin": "a"}
    text = "\n".join(story_lines(ROW | {"reasons": [REASON]}, measured, {}))
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


def test_story_of_a_kept_row_tells_its_split() -> None:
    assert "  split             test" in story_lines(ROW, None, {"train": False, "test": True})
    assert any("left out by a cap" in line for line in story_lines(ROW, None, {"train": False}))
    assert any("not made yet" in line for line in story_lines(ROW, None, {}))
