import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import PipelineError
from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Summary, Work
from tasks.core.text.prompt_templates import complete, render
from tasks.evaluation.problems.held_out import load as load_held_out
from tasks.prompting import STAGE
from tasks.prompting.problems import write_problems
from tasks.prompting.run import run
from tasks.prompting.split import SPLITS

EXECUTABLE = ("row_id", "prompt", "entry_point", "canonical_solution", "test")


def write_executable(file: Path, ids: list[str]) -> Path:
    rows = [{name: f"{name} {i}" for name in EXECUTABLE} | {"row_id": i} for i in ids]
    schema = pa.schema([(name, pa.string()) for name in EXECUTABLE])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return file


def write_kept(file: Path, rows: int, projects: int, **columns: list[Any]) -> Path:
    table = {
        "row_id": [f"{i:04d}" for i in range(rows)],
        "instruction": [f"Do thing {i}." for i in range(rows)],
        "input": ["" if i % 2 else f"with {i}" for i in range(rows)],
        "output": [f"thing({i})" for i in range(rows)],
        "project": [f"p{i % projects}" for i in range(rows)] if projects else [],
        "kind": ["function"] * rows,
        "cluster": [f"{i:04d}" for i in range(rows)],
        "conversation": [""] * rows,
        **columns,
    }
    blank, ones = ["x"] * rows, [1] * rows
    columns = [
        pa.array(table.get(field.name, ones if field.type == pa.int32() else blank), field.type)
        for field in row_schema.KEPT
    ]
    pq.write_table(pa.table(columns, schema=row_schema.KEPT), file)
    return file


def go(
    tmp_path: Path, kept: Path, executable: list[str] | None = None, **settings: Any
) -> tuple[Summary, dict[str, list[dict[str, Any]]]]:
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    view = View(check({"prompt": settings}), STAGE.reads, STAGE.name)
    table = write_executable(out.with_suffix(".executable"), executable or [])
    inputs = {"filter.kept": kept, "ingest.executable": table}
    summary = run(view, inputs, Work(out, tmp_path))
    return summary, {name: pq.read_table(out / f"{name}.parquet").to_pylist() for name in SPLITS}


def test_every_row_lands_in_one_split_with_its_text(tmp_path: Path) -> None:
    summary, splits = go(tmp_path, write_kept(tmp_path / "kept.parquet", 300, 100))
    rows = {row["row_id"]: row for rows in splits.values() for row in rows}
    assert len(rows) == sum(map(len, splits.values())) == summary.rows_out == 300
    assert rows["0004"]["prompt"] == render("instruction", "Do thing 4.", "with 4")
    assert rows["0004"]["completion"] == complete("instruction", "thing(4)")


def test_no_project_is_in_two_splits(tmp_path: Path) -> None:
    _, splits = go(tmp_path, write_kept(tmp_path / "kept.parquet", 300, 100))
    projects = [{row["project"] for row in rows} for rows in splits.values()]
    assert sum(map(len, projects)) == len(set.union(*projects)) == 100


def test_new_projects_never_move_old_rows(tmp_path: Path) -> None:
    _, before = go(tmp_path, write_kept(tmp_path / "a.parquet", 100, 100))
    _, after = go(tmp_path, write_kept(tmp_path / "b.parquet", 200, 200))
    for name in SPLITS:
        assert {r["row_id"] for r in before[name]} <= {r["row_id"] for r in after[name]}


def test_rows_beyond_a_cap_are_counted_by_split(tmp_path: Path) -> None:
    kept = write_kept(tmp_path / "kept.parquet", 300, 100)
    summary, splits = go(tmp_path, kept, max_train_rows=10, max_held_out_rows=2)
    assert [len(splits[name]) for name in SPLITS] == [10, 2, 2]
    assert summary.rows_out == 14
    assert sum(summary.counts.values()) == 286
    left_out = sum(n for reason, n in summary.counts.items() if reason.startswith("over_cap"))
    said = f"; {left_out} left out by prompt.max_train_rows and max_held_out_rows"
    assert summary.line.endswith(said)


def one_repository(rows: int, files: int) -> dict[str, list[str]]:
    return {"project": ["r/"] * rows, "path": [f"src/m{i % files}.py" for i in range(rows)]}


def test_the_summary_and_the_metrics_tell_what_a_single_repository_is_split_by(
    tmp_path: Path,
) -> None:
    kept = write_kept(tmp_path / "kept.parquet", 60, 0, **one_repository(60, 6))
    summary, splits = go(tmp_path, kept)
    assert all(splits.values())
    assert " rows, split by file: 6 files of 1 project, 1 file held out" in summary.line
    assert (summary.metrics["train_files"], summary.metrics["train_projects"]) == (4, 1)


@pytest.mark.parametrize(
    ("files", "held_out"),
    [
        (150, "20 files held out for the evaluation"),
        (30, "6 files held out for the evaluation"),
        (29, "5 files held out for the evaluation: too few for a verdict, which needs 6"),
    ],
)
def test_a_small_repository_holds_out_as_many_files_as_a_verdict_needs_and_else_says_so(
    tmp_path: Path, files: int, held_out: str
) -> None:
    kept = write_kept(tmp_path / "kept.parquet", 3 * files, 0, **one_repository(3 * files, files))
    summary, _ = go(tmp_path, kept, min_test_units=20)
    assert summary.line.endswith(f" of 1 project, {held_out}")


def test_rows_without_projects_are_said_to_be_split_by_row(tmp_path: Path) -> None:
    ids = [f"{i:04d}" for i in range(30)]
    summary, _splits = go(tmp_path, write_kept(tmp_path / "kept.parquet", 30, 0, project=ids))
    assert " test rows, split by row" in summary.line


def test_the_unit_of_the_split_is_what_the_evaluation_resamples(tmp_path: Path) -> None:
    kept = write_kept(tmp_path / "kept.parquet", 60, 0, **one_repository(60, 6))
    _, splits = go(tmp_path, kept)
    units = [{row["project"] for row in rows} for rows in splits.values()]
    assert [len(names) for names in units] == [4, 1, 1]


def test_problems_never_empty_a_split(tmp_path: Path) -> None:
    kept = write_kept(tmp_path / "kept.parquet", 12, 0, **one_repository(12, 4))
    _, splits = go(tmp_path, kept, [f"{i:04d}" for i in range(12)])
    assert [len(rows) for rows in splits.values()] == [1, 1, 1]


def test_a_date_without_the_split_by_time_is_refused_with_a_remedy() -> None:
    with pytest.raises(PipelineError, match=r"Set prompt\.split to time"):
        check({"prompt": {"split_date": "2026-01-31"}})
    check({"prompt": {"split_date": "2026-01-31", "split": "time"}})


def test_a_weight_above_one_repeats_training_rows_only(tmp_path: Path) -> None:
    repeats = [3 if i < 50 else 1 for i in range(300)]
    plain = write_kept(tmp_path / "plain.parquet", 300, 100)
    kept = write_kept(tmp_path / "kept.parquet", 300, 100, repeats=repeats)
    (_, before), (summary, after) = go(tmp_path, plain), go(tmp_path, kept)
    assert after["test"] == before["test"] and after["validation"] == before["validation"]
    extra = len(after["train"]) - len(before["train"])
    small = sum(int(row["row_id"]) < 50 for row in before["train"])
    assert extra == 2 * small == summary.metrics["repeated_rows"]
    assert len({row["row_id"] for row in after["train"]}) == len(after["train"])


def test_no_rows_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no rows"):
        go(tmp_path, write_kept(tmp_path / "kept.parquet", 0, 0))


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(PipelineError, match="leaves nothing to train on"):
        check({"prompt": {"validation_share": 0.5, "test_share": 0.5}})


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    kept = write_kept(tmp_path / "kept.parquet", 300, 100)
    written = []
    for name in ("one", "two"):
        out = tmp_path / name
        out.mkdir()
        executable = write_executable(tmp_path / "executable", ["0001", "0002"])
        inputs = {"filter.kept": kept, "ingest.executable": executable}
        run(View(check({}), STAGE.reads), inputs, Work(out, tmp_path))
        written.append([path.read_bytes() for path in sorted(out.iterdir())])
    assert written[0] == written[1]


def test_no_cluster_of_duplicates_is_in_two_splits(tmp_path: Path) -> None:
    clusters = [f"{i % 150}" for i in range(300)]
    kept = write_kept(tmp_path / "kept.parquet", 300, 100, cluster=clusters)
    summary, splits = go(tmp_path, kept, validation_share=0.2, test_share=0.2)
    found = [{int(row["row_id"]) % 150 for row in rows} for rows in splits.values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 150
    assert summary.counts["cluster_in_another_split"] == 300 - sum(map(len, splits.values())) > 0


def problems(tmp_path: Path) -> list[dict[str, str]]:
    (file,) = tmp_path.glob("out*/problems.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_executable_rows_are_held_out_as_problems_in_humanevals_form(tmp_path: Path) -> None:
    kept = write_kept(tmp_path / "kept.parquet", 300, 100)
    summary, splits = go(tmp_path, kept, ["0004", "0007", "9999"])
    assert problems(tmp_path) == [
        {"task_id": f"held-out/{i}"} | {name: f"{name} {i}" for name in EXECUTABLE[1:]}
        for i in ("0004", "0007")
    ]
    left = {row["row_id"] for rows in splits.values() for row in rows}
    assert not {"0004", "0007"} & left and summary.counts["held_out_as_problem"] == 2


def test_what_is_tied_to_a_problem_is_not_trained_on(tmp_path: Path) -> None:
    clusters = ["x" if i in (4, 5) else f"{i}" for i in range(300)]
    kept = write_kept(tmp_path / "kept.parquet", 300, 100, cluster=clusters)
    _, splits = go(tmp_path, kept, ["0004"])
    assert "0005" not in {row["row_id"] for rows in splits.values() for row in rows}


def test_problems_come_from_the_test_split_first(tmp_path: Path) -> None:
    kept = write_kept(tmp_path / "kept.parquet", 300, 100)
    _, splits = go(tmp_path, kept, test_share=0.3)
    wanted = {row["row_id"] for row in splits["test"]}
    (tmp_path / "again").mkdir()
    everything = [f"{i:04d}" for i in range(300)]
    go(tmp_path / "again", kept, everything, test_share=0.3, max_problems=len(wanted) - 1)
    found = {p["task_id"].removeprefix("held-out/") for p in problems(tmp_path / "again")}
    assert found < wanted and len(found) == len(wanted) - 1


def test_each_problem_is_one_line_whatever_its_text_holds(tmp_path: Path) -> None:
    entry = {name: f"{name} \u2028 \x85 é" for name in EXECUTABLE} | {"row_id": "0004"}
    write_problems(tmp_path / "problems.jsonl", [entry])
    (problem,) = load_held_out(tmp_path / "problems.jsonl")
    assert problem.prompt == entry["prompt"]


PEAK = {
    "row_id": "0004",
    "prompt": 'def peak(values):\n    """Highest value seen so far, at each place of a list."""\n',
    "entry_point": "peak",
    "canonical_solution": """    best, found = None, []
    for value in values:
        best = value if best is None else max(best, value)
        found.append(best)
    return found
""",
    "test": "def check(candidate):\n    assert candidate([1, 3, 2]) == [1, 3, 3]\n",
}
COPIES = {
    "syntax": """def highest(numbers):
    top, out = None, []
    for n in numbers:
        top = n if top is None else max(top, n)
        out.append(top)
    return out""",
    "substring": "def other():\n    pass\n" + PEAK["canonical_solution"],
    "execution": """def running(items):
    result = []
    for place in range(len(items)):
        result.append(max(items[: place + 1]))
    return result""",
}


@pytest.mark.parametrize("layer", COPIES)
def test_a_row_that_holds_a_problem_is_in_no_split(tmp_path: Path, layer: str) -> None:
    outputs = [f"def f{i}(x):\n    return x + {i}" for i in range(300)]
    outputs[77] = COPIES[layer]
    kept = write_kept(tmp_path / "kept.parquet", 300, 100, output=outputs)
    executable = tmp_path / "executable.parquet"
    pq.write_table(pa.Table.from_pylist([PEAK]), executable)
    out = tmp_path / "out"
    out.mkdir()
    config = check({"filter": {"decontamination": {"execution": layer == "execution"}}})
    inputs = {"filter.kept": kept, "ingest.executable": executable}
    summary = run(View(config, STAGE.reads, STAGE.name), inputs, Work(out, tmp_path))
    assert summary.counts["holds_a_problem"] == 1
    left = {i for n in SPLITS for i in pq.read_table(out / f"{n}.parquet")["row_id"].to_pylist()}
    assert "0077" not in left and len(left) == 298
    hits = [json.loads(line) for line in (out / "contaminated.jsonl").read_text().splitlines()]
    assert (hits[0]["row_id"], hits[0]["task_id"]) == ("0077", "held-out/0004")
    assert layer in {hit["layer"] for hit in hits}
