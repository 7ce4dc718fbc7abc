"""Changes of nested settings and long lists, as a plan shows them."""

from typing import Any

import pytest

from tasks.core.cache.causes import setting_changes

FILES = {"kind": "files", "path": "a.jsonl", "licence": "MIT", "columns": {"output": None}}
GIT = {"kind": "git", "path": "shop", "licence": ""}
LICENCES = ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "Zlib"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            [GIT, FILES],
            [GIT, {**FILES, "licence": "ISC"}],
            "config ingest.sources[1].licence MIT -> ISC",
        ),
        (
            [FILES],
            [{**FILES, "columns": {"output": "answer"}}],
            "config ingest.sources[0].columns.output none -> answer",
        ),
        ([FILES], [GIT, FILES], "config ingest.sources (added git shop)"),
        (
            [FILES, GIT],
            [GIT, FILES],
            "config ingest.sources (the same members in another order)",
        ),
        ([GIT, FILES], [FILES], "config ingest.sources (removed git shop)"),
        (LICENCES, [*LICENCES[1:], "ISC"], "config ingest.sources (added ISC; removed Apache-2.0)"),
        (["a"], ["a", "b"], "config ingest.sources ['a'] -> ['a', 'b']"),
        (4, 8, "config ingest.sources 4 -> 8"),
    ],
)
def test_a_change_is_told_by_the_field_or_member_that_differs(old: Any, new: Any, told: str):
    (cause,) = setting_changes({"ingest.sources": old}, {"ingest.sources": new})
    assert str(cause) == told


def test_equal_values_are_no_change():
    assert setting_changes({"a": [FILES]}, {"a": [dict(FILES)]}) == []


def test_a_path_below_the_home_folder_is_relative_to_it(monkeypatch, tmp_path):
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    (cause,) = setting_changes({"a": f"{tmp_path}/data/x"}, {"a": f"{tmp_path}/data/y"})
    assert str(cause) == "config a data/x -> data/y"
