"""A row is identified by its text; where it was read is in columns only."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

CODE = '''def f{n}(x):
    """Return x, and {n} on top of it."""
    return x + {n}
'''


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["row_id"] for row in rows]


def jsonl(path: Path, name: str = "s", **fields: Any) -> dict[str, Any]:
    return {"kind": "files", "path": str(path), "name": name, **fields}


def test_renamed_files_and_sources_keep_their_ids(ingest, tmp_path, write_jsonl, row) -> None:
    _, before, _ = ingest(jsonl(write_jsonl(tmp_path / "a.jsonl", row(1), row(2))))
    _, after, _ = ingest(jsonl(write_jsonl(tmp_path / "b.jsonl", row(1), row(2)), "other"))
    assert ids(before) == ids(after) and after[0]["path"] == "b.jsonl"


def test_renamed_code_files_and_folders_keep_their_ids(ingest, tmp_path) -> None:
    found = []
    for place in ("one/src/a.py", "two/lib/deep/b.py"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(CODE.format(n=1))
        root = tmp_path / place.partition("/")[0]
        found.append(ids(ingest({"kind": "folder", "path": str(root)})[1]))
    assert found[0] == found[1]


def test_another_unicode_form_of_a_name_keeps_the_ids(ingest, tmp_path, write_jsonl, row) -> None:
    found = []
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "ä.jsonl")
        found.append(ids(ingest(jsonl(write_jsonl(tmp_path / form / name, row(1))))[1]))
    assert found[0] == found[1]


def test_copies_are_numbered_after_the_first_one(ingest, tmp_path, write_jsonl, row) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", row(), row(1), row())
    second = write_jsonl(tmp_path / "b.jsonl", row())
    _, rows, _ = ingest(jsonl(first), jsonl(second, "t"))
    own = rows[0]["row_id"]
    assert ids(rows) == [own, rows[1]["row_id"], f"{own}-1", f"{own}-2"]
    assert sorted(ids(rows)).index(own) < sorted(ids(rows)).index(f"{own}-1")
    assert [r["project"] for r in rows] == ids(rows)


def test_executable_copies_of_a_function_are_told_apart(ingest, outputs, tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(CODE.format(n=1))
    _, rows, _ = ingest({"kind": "folder", "path": str(tmp_path)})
    assert len(set(ids(rows))) == 2


@pytest.mark.parametrize(
    ("files", "projects"),
    [
        (["a/x.py", "b/y.py"], {"s/a/", "s/b/"}),
        (["a/x.py", "b/y.py", "pyproject.toml"], {"s/"}),
        (["a/x.py", "b/y.py", "LICENSE"], {"s/"}),
        (["x.py", "b/y.py"], {"s/"}),
        (["a/x.py", "a-1.0.dist-info/METADATA"], {"s/"}),
    ],
)
def test_a_folder_is_one_project_or_holds_projects(ingest, tmp_path, files, projects) -> None:
    for i, file in enumerate(files):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(CODE.format(n=i) if file.endswith(".py") else "")
    _, rows, _ = ingest({"kind": "folder", "path": str(tmp_path), "name": "s"})
    assert {r["project"] for r in rows} == projects


@pytest.mark.parametrize(
    ("group", "projects"),
    [
        ("source", {"s/"}),
        ("top", {"s/a/", "s/b/"}),
        ("folder", {"s/a/deep/", "s/b/"}),
        ("file", {"s/a/deep/x.py/", "s/b/y.py/"}),
    ],
)
def test_the_project_of_code_can_be_set(ingest, tmp_path, group, projects) -> None:
    for i, file in enumerate(["a/deep/x.py", "b/y.py"]):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(CODE.format(n=i))
    source = {"kind": "folder", "path": str(tmp_path), "name": "s", "columns": {"project": group}}
    assert {r["project"] for r in ingest(source)[1]} == projects


def test_a_weight_above_one_is_how_often_rows_are_repeated(
    ingest, tmp_path, write_jsonl, row
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", *(row(i) for i in range(400)))
    _, rows, _ = ingest(jsonl(path, weight=2.5))
    repeats = [r["repeats"] for r in rows]
    assert set(repeats) == {2, 3} and 160 < repeats.count(3) < 240
