import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import PipelineError
from tasks.core.rows import disk_arrays, row_schema
from tasks.core.rows import row_cache_shards as shards
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.filtering import STAGE, scores
from tasks.filtering import run as stage
from tasks.filtering.report.funnel import Funnel, heavy_line
from tests.conftest import ingested_row as row

Filtered = tuple[Summary, list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def filtered(tmp_path: Path) -> Callable[..., Filtered]:
    """Run the stage on rows; gives summary, kept, rejected, funnel."""

    def run_on(
        *rows: dict[str, Any], workers: int = 1, ran: tuple[str, ...] = (), **settings: Any
    ) -> Filtered:
        out, scratch, given = tmp_path / "out", tmp_path / "scratch", tmp_path / "rows.parquet"
        out.mkdir(exist_ok=True)
        scratch.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema=row_schema.ROWS), given)
        evaluated = {"sets": settings.pop("sets", [])}
        config = check(
            {"filter": settings, "evaluate": evaluated, "hardware": {"workers": workers}}
        )
        view = View(config, STAGE.reads, STAGE.name)
        executable = tmp_path / "executable.parquet"
        pq.write_table(pa.table({"row_id": pa.array(ran, pa.string())}), executable)
        inputs = {"ingest.rows": given, "ingest.executable": executable}
        summary = STAGE.load_run()(view, inputs, Work(out, scratch))
        kept, rejected = (pq.read_table(out / f"{n}.parquet") for n in ("kept", "rejected"))
        assert kept.schema.equals(row_schema.KEPT) and rejected.schema.equals(row_schema.REJECTED)
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
    own = {"redactions": ""}
    assert kept == [r | own | {"cluster": r["row_id"]} for r in (rows[0], rows[1], rows[3])]
    assert [r["row_id"] for r in rejected] == [rows[2]["row_id"]]


def test_scores_on_disk_give_the_same_files(filtered, tmp_path, monkeypatch) -> None:
    texts = ["\n".join(f"walk{n // 2} to{i}" for i in range(40)) for n in range(60)]
    rows = [row(n, output=text + ("\nend" if n % 2 else "")) for n, text in enumerate(texts)]
    names = ("kept.parquet", "rejected.parquet", "measurements.parquet", "funnel.json")
    assert len(filtered(*rows)[1]) == 60  # their questions differ
    same = [{**one, "instruction": "Walk."} for one in rows]
    kept = len(filtered(*same)[1])
    before = [(tmp_path / "out" / name).read_bytes() for name in names]
    for place, name in ((shards, "BLOCK_ROWS"), (scores, "BLOCK_ROWS")):
        monkeypatch.setattr(place, name, 7)
    monkeypatch.setattr(disk_arrays, "IN_MEMORY_BYTES", 8)
    assert len(filtered(*same)[1]) == kept == 30
    assert [(tmp_path / "out" / name).read_bytes() for name in names] == before


def test_rejected_row_tells_rule_value_and_threshold(filtered) -> None:
    _, _, (rejected,), _ = filtered(row(1), row(2, output="12345678"))
    assert rejected["reasons"] == [
        {"rule": "alphabetic_share", "value": 0.0, "threshold": 0.25, "note": ""}
    ]


def test_duplicate_tells_the_row_that_is_kept(filtered) -> None:
    _, kept, (rejected,), _ = filtered(
        row(2, instruction="Do.", output="same(x)"), row(1, instruction="Do.", output="same(x)  ")
    )
    assert [r["row_id"][-1] for r in kept] == ["1"]
    (reason,) = rejected["reasons"]
    assert reason["rule"] == "duplicate" and reason["note"] == f"same as {kept[0]['row_id']}"


def test_same_instruction_on_another_input_is_no_duplicate(filtered) -> None:
    same = {"instruction": "Explain the code."}
    _, kept, _, _ = filtered(row(1, input="f(x)", **same), row(2, input="g(x)", **same))
    assert len(kept) == 2


def test_duplicates_stay_when_the_settings_say_so(filtered) -> None:
    _, kept, _, _ = filtered(row(1, output="same"), row(2, output="same"), exact_duplicates=False)
    assert len(kept) == 2


def test_rejected_rows_of_a_kept_text_are_told_to_be_duplicates_too(filtered) -> None:
    _, _, (rejected,), _ = filtered(
        row(1, instruction="Do.", output="same"),
        row(2, instruction="Do.", output="same", licence="GPL-2.0-only"),
    )
    assert {reason["rule"] for reason in rejected["reasons"]} == {
        "licence",
        "duplicate",
        "near_duplicate",
    }


def test_funnel_and_summary_count_the_same(filtered) -> None:
    summary, kept, rejected, funnel = filtered(
        row(1), row(2, output="1" * 80), row(3, output="2 3")
    )
    assert (funnel["rows"], funnel["kept"], funnel["rejected"]) == (3, len(kept), len(rejected))
    assert summary.line == (
        "1 of 3 rows kept; most removed by alphabetic_share (2); alphabetic_share removes 2 of 3 "
        "rows of s: filter.min_alphabetic_share, without it 2 are kept"
    )
    assert funnel["sources"] == {"s": {"rows": 3, "kept": 1, "rejected": 2}}


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
        names = ("kept.parquet", "rejected.parquet", "funnel.json", "measurements.parquet")
        files.append([(tmp_path / "out" / name).read_bytes() for name in names])
    assert files[0] == files[1]


def test_scratch_is_empty_after_the_run(filtered, tmp_path) -> None:
    filtered(row(1))
    assert not list((tmp_path / "scratch").iterdir())


def test_no_row_at_all_is_an_error(filtered) -> None:
    with pytest.raises(PipelineError, match="received 0 rows"):
        filtered()


WORDS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma"
)


def test_near_duplicate_names_the_kept_twin_and_the_similarity(filtered) -> None:
    long = f"{WORDS}\n{WORDS.replace(' ', '_x ')}\n{WORDS.replace(' ', '_y ')}"
    same = {"instruction": "Say it."}
    rows = [row(1, output=f"{long}\nend", **same), row(2, output=long, **same), row(3)]
    _, kept, rejected, funnel = filtered(*rows, max_mean_line=200)
    assert [r["row_id"][-1] for r in kept] == ["1", "3"]
    (near,) = rejected[0]["reasons"]
    assert near["rule"] == "near_duplicate" and 0.7 <= near["value"] < 1
    assert near["note"] == f"Jaccard {near['value']:.3f} with {kept[0]['row_id']}"
    assert {r["cluster"] for r in (kept[0], rejected[0])} == {kept[0]["row_id"]}
    assert funnel["duplicates"] == {"clusters": 1, "largest": 2, "verified_pairs": 1}


def test_near_duplicates_stay_when_the_settings_say_so(filtered) -> None:
    texts = [f"{WORDS} x {WORDS} y {WORDS}\n{end}" for end in ("one", "two")]
    rows = [row(n, instruction="Say it.", output=text) for n, text in enumerate(texts)]
    given = {"max_mean_line": 1000}
    assert len(filtered(*rows, near_duplicates={"enabled": False}, **given)[1]) == 2
    loose = {"jaccard": 0.5, "bands": 64, "rows_per_band": 1}
    assert len(filtered(*rows, near_duplicates=loose, **given)[1]) == 1


def test_redacted_texts_are_what_is_kept_and_spans_are_recorded(filtered) -> None:
    text = "mail(to='anna@home.org')"
    summary, (kept,), _, funnel = filtered(row(1, output=text))
    assert kept["output"] == "mail(to='REDACTED_EMAIL')"
    assert json.loads(kept["redactions"]) == [["output", "email", 9, 22]]
    assert text[9:22] == "anna@home.org"
    assert funnel["redacted"] == {"email": {"spans": 1, "rows": 1}}
    assert summary.counts["redacted_email"] == 1


KEY = (
    "-----BEGIN EC " + "PRIVATE KEY-----\n" + "MHcCAQEEIIrY" * 8 + "\n-----END EC PRIVATE KEY-----"
)


def test_private_key_drops_the_row_and_is_in_no_file(filtered) -> None:
    _, kept, (rejected,), _ = filtered(row(1), row(2, output=f"key = {KEY}"))
    assert len(kept) == 1 and rejected["reasons"][0]["rule"] == "private_key"
    assert rejected["output"] == "key = REDACTED_PRIVATE_KEY"


def test_own_benchmark_file_rejects_its_task(filtered, tmp_path) -> None:
    task = {"task_id": "M/1", "prompt": f"Arrange these: {WORDS}."}
    (tmp_path / "mine.jsonl").write_text(json.dumps(task))
    files = [{"path": str(tmp_path / "mine.jsonl")}]
    _, _, (rejected,), funnel = filtered(
        row(1),
        row(2, instruction=f"Hello! {task['prompt'].upper()} Thanks."),
        decontamination={"files": files, "benchmarks": []},
    )
    told = {r["rule"]: r["note"].partition(":")[0] for r in rejected["reasons"]}
    assert told == {"contamination_substring": "M/1", "contamination_ngrams": "M/1"}
    assert funnel["contamination"]["rows"] == funnel["contamination"]["tasks"] == 1
    assert {hit["task_id"] for hit in funnel["contamination"]["hits"]} == {"M/1"}
    assert funnel["benchmarks"] == [{"name": "mine.jsonl", "tasks": 1, "missing": ""}]


def test_what_the_evaluation_measures_on_is_not_trained_on(filtered, tmp_path) -> None:
    solution = "    total = 0\n    for a in range(n):\n        total += a % 7\n    return total\n"
    asked = {
        "prompt": 'def odd_sum(n):\n    """Sum up remainders."""\n',
        "entry_point": "odd_sum",
        "test": "assert odd_sum(3) == 3",
        "canonical_solution": solution,
    }
    told = {"id": "two", "prompt": f"Arrange these: {WORDS}.", "answer": "no"}
    for name, line in (("asked", asked), ("told", told)):
        text = json.dumps(line, ensure_ascii=False)
        (tmp_path / f"{name}.jsonl").write_text(f"\ufeff{text}\n", encoding="utf-8")
    sets = [
        {"name": "asked", "path": str(tmp_path / "asked.jsonl")},
        {"name": "told", "path": str(tmp_path / "told.jsonl"), "kind": "answers"},
    ]
    copy = f"def f(m):\n{solution}".replace("total", "t").replace("(n)", "(m)")
    same = "def g(k):\n    return sum(i % 7 for i in range(k))"
    rows = [row(1), row(2, output=copy), row(3, instruction=told["prompt"]), row(4, output=same)]
    _, kept, rejected, funnel = filtered(
        *rows, sets=sets, decontamination={"benchmarks": [], "execution": True}
    )
    assert [r["row_id"] for r in kept] == [rows[0]["row_id"]]
    found = {
        r["row_id"][-1]: {(x["rule"], x["note"].partition(": ")[0]) for x in r["reasons"]}
        for r in rejected
    }
    assert found["2"] == {("contamination_syntax", "asked.jsonl:1")}
    assert ("contamination_substring", "two") in found["3"]
    assert found["4"] == {("contamination_execution", "asked.jsonl:1")}
    assert [b["name"] for b in funnel["benchmarks"]] == ["asked", "told"]


def test_rows_that_are_neither_kept_nor_rejected_stop_the_stage(filtered, monkeypatch) -> None:
    whole = Funnel.add_batch

    def forgetful(self, table, reasons, redactions, draws):
        whole(self, table.slice(0, 1), reasons[:1], redactions[:1], draws[:1])

    monkeypatch.setattr(Funnel, "add_batch", forgetful)
    with pytest.raises(RuntimeError, match="1 kept \\+ 0 rejected rows are not the 2 rows read"):
        filtered(row(1), row(2))


def test_absent_benchmark_is_told_in_the_funnel_and_on_the_way(filtered, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("tasks.filtering.benchmarks.humaneval_file", lambda: None)
    monkeypatch.setattr(stage, "say", said.append)
    *_, funnel = filtered(row(1))
    assert "not installed" in funnel["benchmarks"][0]["missing"] and "not installed" in said[0]


def test_what_if_is_what_another_threshold_really_keeps(filtered) -> None:
    rows = [row(n, output="a" * n + "1" * (20 - n)) for n in range(1, 20)]
    plain = {
        "exact_duplicates": False,
        "near_duplicates": {"enabled": False},
        "min_alphabetic_share": 0.5,
    }
    *_, funnel = filtered(*rows, **plain)
    for moved in funnel["what_if"]["alphabetic_share"].values():
        _, kept, _, _ = filtered(*rows, **{**plain, "min_alphabetic_share": moved["threshold"]})
        assert moved["kept"] == len(kept)


def test_measurements_hold_every_value_of_every_row(filtered, tmp_path) -> None:
    filtered(row(1), row(2, output="1 2 3"))
    table = pq.read_table(tmp_path / "out" / "measurements.parquet").to_pylist()
    assert [r["row_id"] for r in table] == [row(1)["row_id"], row(2)["row_id"]]
    assert table[1]["alphabetic_share"] == 0 and table[1]["function_lines"] is None


FUNCTION = {
    "kind": "function",
    "instruction": "Tell what stands here in words.",
    "output": "def f(x):\n    return x",
}


def test_functions_that_did_not_run_are_rejected_where_that_is_asked_for(filtered) -> None:
    given = {"exact_duplicates": False, "near_duplicates": {"enabled": False}}
    rows = [row(1, **FUNCTION), row(2, **FUNCTION), row(3)]
    ran = (rows[0]["row_id"],)
    assert len(filtered(*rows, ran=ran, **given)[1]) == 3
    _, kept, (rejected,), funnel = filtered(*rows, ran=ran, require_executable=True, **given)
    assert [r["row_id"][-1] for r in kept] == ["1", "3"]
    assert [(r["rule"], r["value"], r["threshold"]) for r in rejected["reasons"]] == [
        ("not_executable", 0.0, 1.0)
    ]
    told = next(r for r in funnel["reasons"] if r["rule"] == "not_executable")
    assert (told["rows"], told["setting"]) == (1, "filter.require_executable")


def test_asking_for_functions_that_ran_where_none_ran_is_an_error(filtered) -> None:
    with pytest.raises(PipelineError, match="no function's doctests have passed"):
        filtered(row(1, **FUNCTION), require_executable=True)


def test_several_answers_to_a_question_are_kept_up_to_a_number(filtered) -> None:
    rows = [
        row(n, kind="instruction", instruction="Add them.", output=f"add_{n}(all_of_{n})")
        for n in range(5)
    ]
    _, kept, _, _ = filtered(*rows)
    assert len(kept) == 5 and len({r["cluster"] for r in kept}) == 1
    _, kept, rejected, _ = filtered(*rows, max_answers=3)
    assert len(kept) == 3
    assert {r["reasons"][0]["rule"] for r in rejected} == {"more_answers"}
    assert len(filtered(*rows, max_answers=None)[1]) == 5


def test_segments_after_the_same_masked_text_are_no_answers_to_a_question(filtered) -> None:
    rows = [
        row(n, kind="segments", instruction="# code", output=f"def f{n}(x):\n    return x + {n}")
        for n in range(15)
    ]
    assert len(filtered(*rows)[1]) == 15


def test_answers_that_many_questions_share_are_all_kept(filtered) -> None:
    rows = [row(n, kind="instruction", output="yes" if n % 2 else "no") for n in range(100)]
    assert len(filtered(*rows)[1]) == 100


def test_plain_text_is_compared_by_itself(filtered) -> None:
    rows = [row(n, kind="text", instruction="", output=f"text_{n % 3}()") for n in range(9)]
    assert len(filtered(*rows)[1]) == 3


def test_a_rule_that_removes_most_of_a_source_is_told_with_what_it_would_keep(filtered) -> None:
    rows = [row(n, source="small", licence="GPL-3.0-only" if n else "MIT") for n in range(4)]
    summary, _, _, funnel = filtered(*rows, *(row(n) for n in range(4, 40)))
    (heavy,) = funnel["heavy"]
    assert heavy == {
        "source": "small",
        "rule": "licence",
        "setting": "filter.licences",
        "rows": 3,
        "of": 4,
        "licences": {"GPL-3.0-only": 3},
        "kept": 1,
        "kept_without": 4,
    }
    assert (
        "licence removes 3 of 4 rows of small: GPL-3.0-only (3); filter.more_licences"
        in summary.line
    )


def test_two_rules_that_remove_the_same_rows_promise_no_row_of_each_other() -> None:
    found = {"source": "s", "rule": "a", "setting": "filter.a", "rows": 3, "of": 4, "licences": {}}
    assert heavy_line(found | {"kept": 1, "kept_without": 1}) == (
        "a removes 3 of 4 rows of s: filter.a, alone it changes nothing: other rules remove the "
        "same rows"
    )


def test_texts_inside_a_conversation_are_redacted_too(filtered) -> None:
    said = "Write to ann@somebody.dev today"
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": "Done"}]
    text = json.dumps({"messages": messages}, sort_keys=True)
    _, (kept,), _, _ = filtered(
        row(1, kind="conversation", instruction=said, output="Done", conversation=text)
    )
    assert "ann@" not in kept["conversation"] + kept["instruction"]
    found = json.loads(kept["conversation"])["messages"][0]["content"]
    assert found == kept["instruction"] == "Write to REDACTED_EMAIL today"


def test_rows_that_all_have_no_allowed_license_name_it_and_what_helps(filtered) -> None:
    rows = [row(1, licence="GPL-3.0-only"), row(2, licence="")]
    with pytest.raises(PipelineError) as error:
        filtered(*rows)
    text = str(error.value)
    assert "license GPL-3.0-only 1, unknown 1" in text
    assert "set filter.more_licences to [GPL-3.0-only]" in text
    assert "tate the license of a source in its field `licence`" in text
    assert len(filtered(*rows, more_licences=["GPL-3.0-only"])[1]) == 1


def test_files_and_fill_are_duplicates_only_as_a_whole(filtered) -> None:
    words = " ".join(f"word{n}" for n in range(60))
    file = {"kind": "file", "instruction": "", "language": "go"}
    fill = {"kind": "fill", "language": "go", "output": "return x"}
    _, kept, rejected, _ = filtered(
        row(0, **file, output="package a\n"),
        row(1, **file, output="package b\n"),
        row(2, **fill, instruction=f"{words} one"),
        row(3, **fill, instruction=f"{words} two"),  # a near duplicate, as holes of one file are
        row(4, **fill, instruction=f"{words} two"),
    )
    assert [r["output"] for r in kept] == ["package a\n", "package b\n", "return x", "return x"]
    assert [r["instruction"][-3:] for r in rejected] == ["two"]
