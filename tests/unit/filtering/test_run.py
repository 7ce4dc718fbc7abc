import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core import schemas
from tasks.core.config import View, check
from tasks.core.errors import PipelineError
from tasks.core.stage import Summary, Work
from tasks.filtering import STAGE
from tasks.filtering import run as stage

Filtered = tuple[Summary, list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "row_id": f"{number:032x}",
        "instruction": f"Task number {number}",
        "input": "",
        "output": f"answer_number({number})",
        "kind": "instruction",
        "source": "s",
        "project": "p",
        "path": "a.jsonl",
        "line": number,
        "version": "",
        "licence": "MIT",
        "licence_evidence": "",
        **fields,
    }


@pytest.fixture
def filtered(tmp_path: Path) -> Callable[..., Filtered]:
    """Run the stage on rows; gives summary, kept, rejected, funnel."""

    def run_on(*rows: dict[str, Any], workers: int = 1, **settings: Any) -> Filtered:
        out, scratch, given = tmp_path / "out", tmp_path / "scratch", tmp_path / "rows.parquet"
        out.mkdir(exist_ok=True)
        scratch.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schemas.ROWS), given)
        config = check({"filter": settings, "hardware": {"workers": workers}})
        view = View(config, STAGE.reads, STAGE.name)
        summary = STAGE.load_run()(view, {"ingest.rows": given}, Work(out, scratch))
        kept, rejected = (pq.read_table(out / f"{n}.parquet") for n in ("kept", "rejected"))
        assert kept.schema.equals(schemas.KEPT) and rejected.schema.equals(schemas.REJECTED)
        return (
            summary,
            kept.to_pylist(),
            rejected.to_pylist(),
            json.loads((out / "funnel.json").read_text()),
        )

    return run_on


def test_kept_rows_are_the_rows_read_unchanged_and_in_order(filtered) -> None:
    rows = [row(3), row(1), row(2, output="1 2 3"), row(0)]
    _, kept, rejected, _ = filtered(*rows)
    assert kept == [rows[0], rows[1], rows[3]]
    assert [r["row_id"] for r in rejected] == [rows[2]["row_id"]]


def test_rejected_row_tells_rule_value_and_threshold(filtered) -> None:
    _, _, (rejected,), _ = filtered(row(1), row(2, output="12345678"))
    assert rejected["reasons"] == [
        {"rule": "alphabetic_share", "value": 0.0, "threshold": 0.25, "note": ""}
    ]


def test_duplicate_tells_the_row_that_is_kept(filtered) -> None:
    _, kept, (rejected,), _ = filtered(row(2, output="same(x)"), row(1, output="same( x )"))
    assert [r["row_id"][-1] for r in kept] == ["1"]
    (reason,) = rejected["reasons"]
    assert reason["rule"] == "duplicate_output" and reason["note"] == f"same as {kept[0]['row_id']}"


def test_same_instruction_on_another_input_is_no_duplicate(filtered) -> None:
    same = {"instruction": "Explain the code."}
    _, kept, _, _ = filtered(row(1, input="f(x)", **same), row(2, input="g(x)", **same))
    assert len(kept) == 2


def test_duplicates_stay_when_the_settings_say_so(filtered) -> None:
    _, kept, _, _ = filtered(row(1, output="same"), row(2, output="same"), deduplicate=[])
    assert len(kept) == 2


def test_rejected_rows_of_a_kept_text_are_told_to_be_duplicates_too(filtered) -> None:
    _, _, (rejected,), _ = filtered(
        row(1, output="same"), row(2, output="same", licence="GPL-2.0-only")
    )
    assert {reason["rule"] for reason in rejected["reasons"]} == {"licence", "duplicate_output"}


def test_funnel_and_summary_count_the_same(filtered) -> None:
    summary, kept, rejected, funnel = filtered(
        row(1), row(2, output="1" * 80), row(3, output="2 3")
    )
    assert (funnel["rows"], funnel["kept"], funnel["rejected"]) == (3, len(kept), len(rejected))
    assert summary.line == "1 of 3 rows kept; most removed by alphabetic_share (2)"
    assert funnel["sources"] == {"s": {"rows": 3, "kept": 1}}


def test_every_row_filtered_out_tells_the_rules_and_the_settings(filtered) -> None:
    with pytest.raises(PipelineError) as error:
        filtered(row(1), row(2), min_alphabetic_share=1)
    assert "all 2 rows are filtered out, by alphabetic_share 2" in error.value.problem
    assert "threshold 1" in error.value.problem
    assert "filter.min_alphabetic_share" in error.value.remedy


def test_any_number_of_workers_gives_the_same_bytes(filtered, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(stage, "ROWS_FOR_PROCESSES", 1)
    monkeypatch.setattr(stage, "BATCH_ROWS", 16)
    rows = [row(n, output=f"value_{n % 30}") for n in range(100)]
    files = []
    for workers in (1, 2):
        filtered(*rows, workers=workers)
        names = ("kept.parquet", "rejected.parquet", "funnel.json")
        files.append([(tmp_path / "out" / name).read_bytes() for name in names])
    assert files[0] == files[1]


def test_scratch_is_empty_after_the_run(filtered, tmp_path) -> None:
    filtered(row(1))
    assert not list((tmp_path / "scratch").iterdir())


def test_no_row_at_all_is_an_error(filtered) -> None:
    with pytest.raises(PipelineError, match="0 rows to judge"):
        filtered()
