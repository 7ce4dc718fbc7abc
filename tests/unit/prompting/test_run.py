from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core import schemas
from tasks.core.config import View, check
from tasks.core.errors import PipelineError
from tasks.core.stage import Summary, Work
from tasks.core.templates import complete, render
from tasks.prompting import STAGE
from tasks.prompting.run import run
from tasks.prompting.split import SPLITS


def write_kept(file: Path, rows: int, projects: int) -> Path:
    table = {
        "row_id": [f"{i:04d}" for i in range(rows)],
        "instruction": [f"Do thing {i}." for i in range(rows)],
        "input": ["" if i % 2 else f"with {i}" for i in range(rows)],
        "output": [f"thing({i})" for i in range(rows)],
        "project": [f"p{i % projects}" for i in range(rows)] if projects else [],
    }
    blank = ["x"] * rows
    columns = [
        pa.array(table.get(field.name, [1] * rows if field.name == "line" else blank), field.type)
        for field in schemas.KEPT
    ]
    pq.write_table(pa.table(columns, schema=schemas.KEPT), file)
    return file


def go(
    tmp_path: Path, kept: Path, **settings: Any
) -> tuple[Summary, dict[str, list[dict[str, Any]]]]:
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    view = View(check({"prompt": settings}), STAGE.reads, STAGE.name)
    summary = run(view, {"filter.kept": kept}, Work(out, tmp_path))
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


def test_an_empty_split_says_how_many_projects_there_are(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no project fell into .*: 2 projects"):
        go(tmp_path, write_kept(tmp_path / "kept.parquet", 50, 2))


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
        run(View(check({}), STAGE.reads), {"filter.kept": kept}, Work(out, tmp_path))
        written.append([(out / f"{split}.parquet").read_bytes() for split in SPLITS])
    assert written[0] == written[1]
