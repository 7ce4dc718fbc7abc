"""Rows of a file after the files that it needs."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.languages.registry import BY_NAME
from tasks.ingestion.code_windows import context_windows

MAIN = '#include "util.h"\n\n' + "".join(
    f"int f{n}(int a) {{\n    return util(a, {n});\n}}\n\n" for n in range(30)
)
UTIL = "/* Adds. */\nint util(int a, int b);\n"
SOURCE = BY_NAME["c"].parse(MAIN)


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_h", ".h").replace("_c", ".c")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def code(tmp_path: Path) -> Path:
    other = "int other(void) {\n    return 1;\n}\n" * 8
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "CMakeLists.txt").touch()  # one project
    return tree(tmp_path / "shop", src__main_c=MAIN, src__other_c=other, include__util_h=UTIL)


def contexts(ingest: Any, path: Path, **more: Any) -> list[dict[str, Any]]:
    source = {"kind": "folder", "path": str(path), "rows": ["context"], "licence": "MIT"}
    _, rows, _ = ingest(source | {"window_characters": 1000} | more)
    for row in rows:
        if row["kind"] == "context":
            row["context"] = json.loads(row["conversation"])["context"]
    return rows


def test_imported_files_are_nearest_and_neighbors_before_them(ingest: Any, code: Path) -> None:
    rows = [row for row in contexts(ingest, code) if row["path"] == "src/main.c"]
    assert [path for path, _ in rows[0]["context"]["files"]] == ["src/other.c", "include/util.h"]
    assert rows[0]["context"]["files"][1][1] == UTIL
    assert rows[0]["context"]["repository"] == "shop"
    assert {row["kind"] for row in rows} == {"context"}


def test_the_windows_of_a_file_cover_it_and_rows_are_bounded(ingest: Any, code: Path) -> None:
    rows = [row for row in contexts(ingest, code) if row["path"] == "src/main.c"]
    together = "".join(row["output"] for row in rows)
    assert together.replace("\n", "") == MAIN.replace("\n", "")
    for row in rows:
        size = len(row["output"]) + len(row["context"]["before"])
        assert size + sum(len(text) for _, text in row["context"]["files"]) <= 1000
        assert row["output"] == row["context"]["output"]


def test_a_later_window_follows_the_lines_before_it() -> None:
    windows = list(context_windows(SOURCE, MAIN.encode(), [("util.h", UTIL)], 1000))
    assert windows[0].before == ""
    assert all(MAIN.index(w.before + w.output.strip("\n")) >= 0 and w.before for w in windows[1:])
    assert all(w.before.startswith(("int", "    return", "}", "\n")) for w in windows[1:])


def test_an_edited_file_changes_the_rows_of_those_that_import_it(ingest: Any, code: Path) -> None:
    before = {row["row_id"] for row in contexts(ingest, code)}
    (code / "include/util.h").write_text(UTIL + "int more(void);\n")
    after = [row for row in contexts(ingest, code) if row["row_id"] not in before]
    assert {row["path"] for row in after} == {"include/util.h", "src/main.c"}


def test_other_projects_and_other_licenses_are_no_context(ingest: Any, tmp_path: Path) -> None:
    gpl = "// SPDX-License-Identifier: GPL-3.0-only\n" + UTIL
    both = tree(tmp_path / "all", one__main_c=MAIN, one__util_h=gpl, two__main_c=MAIN + "\n")
    rows = contexts(ingest, both)
    assert {row["project"] for row in rows} == {"all/one/", "all/two/"}
    assert all(not row["context"]["files"] for row in rows)


def test_a_share_thins_or_repeats_the_rows_of_one_row_type(ingest: Any, code: Path) -> None:
    both = {"rows": ["files", "context"], "window_characters": 400}
    plain = contexts(ingest, code, **both)
    shared = contexts(ingest, code, **both, shares={"files": 0.5, "context": 2})
    kinds = [[row["row_id"] for row in rows if row["kind"] == "file"] for rows in (plain, shared)]
    assert 0 < len(kinds[1]) < len(kinds[0]) and set(kinds[1]) < set(kinds[0])
    assert {row["repeats"] for row in shared if row["kind"] == "context"} == {2}
    assert {row["repeats"] for row in [*plain, *shared] if row["kind"] == "file"} == {1}
