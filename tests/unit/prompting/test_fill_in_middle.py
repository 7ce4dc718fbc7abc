from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.rows import row_schema
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.prompting import STAGE
from tasks.prompting.fill_in_middle import hole
from tasks.prompting.run import run

CODE = "def f(x):\n    return x + 1"


@given(st.text(min_size=1, max_size=20), st.text(max_size=8))
def test_a_hole_lies_in_the_text_and_is_never_empty(text: str, row_id: str) -> None:
    place = hole(text, row_id, rate=1, seed=0)
    assert place and 0 <= place[0] < place[1] <= len(text)


def test_the_rate_is_the_share_of_rows_and_a_larger_one_only_adds() -> None:
    chosen = [
        {i for i in range(2000) if hole(CODE, str(i), rate, seed=0)} for rate in (0, 0.25, 0.5)
    ]
    assert not chosen[0] and 420 < len(chosen[1]) < 580 and chosen[1] < chosen[2]


def test_holes_lie_everywhere() -> None:
    places = [hole(CODE, str(i), 1, seed=0) for i in range(2000)]
    assert {start for start, _ in places} >= set(range(len(CODE) - 1))
    assert {end for _, end in places} >= set(range(2, len(CODE) + 1))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    rows = [
        {field.name: "x" for field in row_schema.KEPT if field.type == pa.string()}
        | {
            "row_id": f"{i}",
            "project": f"p{i}",
            "cluster": f"{i}",
            "output": CODE,
            "line": 1,
            "conversation": "",
        }
        | {"kind": "function" if i % 2 else "instruction"}
        for i in range(200)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=row_schema.KEPT), tmp_path / "kept.parquet")
    return tmp_path / "kept.parquet"


def test_only_functions_to_train_on_become_infilling(tmp_path: Path, kept: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    config = check({"prompt": {"fim_rate": 1, "test_share": 0.3, "validation_share": 0.3}})
    none = pa.table({"row_id": pa.array([], pa.string()), "test": pa.array([], pa.string())})
    pq.write_table(none, tmp_path / "executable.parquet")
    inputs = {"filter.kept": kept, "ingest.executable": tmp_path / "executable.parquet"}
    summary = run(View(config, STAGE.reads), inputs, Work(out, tmp_path))
    for split in ("train", "validation", "test"):
        for row in pq.read_table(out / f"{split}.parquet").to_pylist():
            is_infilling = row["prompt"].startswith("\0fim_prefix\0")
            assert is_infilling == (split == "train" and int(row["row_id"]) % 2 == 1)
    assert summary.metrics["infilling_rows"] > 20
