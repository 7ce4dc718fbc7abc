import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import PipelineError
from tasks.core.rows import row_schema
from tasks.ingestion.sampling import sample


def test_sample_corpus_is_read_without_loss(ingest) -> None:
    summary, rows, unreadable = ingest({"kind": "files", "name": "sample", "licence": "CC0-1.0"})
    assert summary.line == f"{len(rows)} rows from 1 source, 0 unreadable" and not unreadable
    assert len(rows) >= 40 and {row["licence"] for row in rows} == {"CC0-1.0"}


def test_rows_are_in_the_order_of_sources_paths_and_lines(
    ingest, tmp_path, write_jsonl, row
) -> None:
    for name in ("z/b", "z/a", "y/c"):
        write_jsonl(tmp_path / f"{name}.jsonl", row(1), row(2))
    _, rows, _ = ingest(*({"kind": "files", "path": str(tmp_path / d)} for d in ("z", "y")))
    got = [(r["source"], r["path"], r["line"]) for r in rows]
    assert got == [
        (s, f, n) for s, f in (("z", "a.jsonl"), ("z", "b.jsonl"), ("y", "c.jsonl")) for n in (1, 2)
    ]


def test_any_number_of_workers_gives_the_same_bytes(ingest, outputs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tasks.ingestion.extract_code.FILES_FOR_PROCESSES", 1)
    for number in range(40):
        text = f'def f{number}(x):\n    """Say x."""\n    return x\n'
        (tmp_path / f"m{number}.py").write_text(text)
    given = {"kind": "folder", "path": str(tmp_path), "name": "s"}
    ingest(given, workers=1)
    ingest(given, workers=2)
    first, second = ((outputs / d / "rows.parquet").read_bytes() for d in ("out0", "out1"))
    assert first == second


def test_folder_source_gives_license_and_project(ingest, tmp_path) -> None:
    text = 'def f(x):\n    """Say x."""\n    return x\n'
    for name in ("a/m.py", "a/deep/n.py", "b/o.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "a" / "LICENSE").write_text("Apache License\nVersion 2.0")
    _, rows, _ = ingest({"kind": "folder", "path": str(tmp_path), "name": "s", "licence": "MIT"})
    assert [(r["project"], r["licence"], r["licence_evidence"]) for r in rows] == [
        ("s/a/", "Apache-2.0", "text of a/LICENSE"),
        ("s/a/", "Apache-2.0", "text of a/LICENSE"),
        ("s/b/", "MIT", "stated in the settings"),
    ]


def test_package_source_gives_project_version_and_evidence(ingest) -> None:
    _, rows, _ = ingest({"kind": "packages", "names": ["iniconfig"]})
    assert {(r["project"], r["licence"]) for r in rows} == {("iniconfig", "MIT")}
    assert all(r["version"] and r["licence_evidence"] and r["kind"] == "function" for r in rows)


def test_max_rows_keeps_an_even_sample_in_order(ingest, tmp_path, write_jsonl, row) -> None:
    write_jsonl(tmp_path / "a.jsonl", *(row(n) for n in range(100)))
    summary, rows, _ = ingest({"kind": "files", "path": str(tmp_path), "max_rows": 10})
    lines = [r["line"] for r in rows]
    assert len(lines) == 10 and lines == sorted(lines) and lines[-1] > 20
    assert summary.counts["rows over max_rows"] == 90


def test_new_row_changes_at_most_one_row_of_a_sample(tmp_path: Path) -> None:
    ids = [f"{n * 2654435761 % 2**64:016x}" for n in range(1, 500)]
    kept = []
    for given in (ids[1:], ids):
        pq.write_table(pa.table({"row_id": given}), tmp_path / "t.parquet")
        kept.append(
            {i for t in sample(tmp_path / "t.parquet", 50) for i in t["row_id"].to_pylist()}
        )
    assert len(kept[1]) == 50 and len(kept[0] - kept[1]) <= 1


def test_run_continues_after_bad_input_and_counts_it(ingest, tmp_path, write_jsonl, row) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", row())
    path.write_bytes(path.read_bytes() + b"{oops\n\xff\n")
    summary, rows, unreadable = ingest({"kind": "files", "path": str(path)})
    assert len(rows) == 1 and [u["line"] for u in unreadable] == [2, 3]
    assert summary.counts["unreadable"] == 2 and summary.rows_in == 3


def test_error_of_a_run_without_rows_names_the_first_problem(ingest, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text("{oops\n")
    with pytest.raises(PipelineError) as error:
        ingest({"kind": "files", "path": str(tmp_path)})
    assert (
        "0 rows" in error.value.problem and "a.jsonl line 1: malformed JSON" in error.value.problem
    )


def test_empty_file_is_an_error(ingest, tmp_path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(PipelineError, match="found no rows"):
        ingest({"kind": "files", "path": str(tmp_path)})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_file_without_permission_is_one_ledger_entry(ingest, tmp_path, write_jsonl, row) -> None:
    write_jsonl(tmp_path / "a.jsonl", row())
    write_jsonl(tmp_path / "b.jsonl", row()).chmod(0)
    _, rows, unreadable = ingest({"kind": "files", "path": str(tmp_path)})
    assert len(rows) == 1 and "can't be read" in unreadable[0]["problem"]


def test_output_holds_no_path_of_this_machine(ingest, tmp_path) -> None:
    (tmp_path / "m.py").write_text('def f(x):\n    """Say x."""\n    return x\n')
    (tmp_path / "bad.py").write_text("def f(:\n")
    _, rows, unreadable = ingest({"kind": "folder", "path": str(tmp_path), "name": "s"})
    assert str(tmp_path) not in str(rows) + str(unreadable)
    assert list(rows[0]) == row_schema.ROWS.names
