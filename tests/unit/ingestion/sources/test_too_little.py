"""`finetune plan` reports too little data where it is known before anything runs."""

import pytest

from tasks.core.cache.digest_cache import sha256
from tasks.core.errors import PipelineError
from tasks.core.settings.config import View, check
from tasks.ingestion.sources.digests import few_files, source_digests


def plan(*sources: dict) -> dict[str, str]:
    config = check({"ingest": {"sources": list(sources)}})
    return source_digests(View(config, ("ingest",), "ingest"), sha256)


def test_two_rows_are_too_little_and_adding_one_helps(tmp_path, write_jsonl, row) -> None:
    source = {"kind": "files", "path": str(tmp_path / "a.jsonl")}
    write_jsonl(tmp_path / "a.jsonl", row(1), row(2))
    with pytest.raises(PipelineError) as caught:
        plan(source)
    assert "too little data: 2 rows" in str(caught.value)
    assert "Add at least 1 to the files" in str(caught.value)
    write_jsonl(tmp_path / "a.jsonl", row(1), row(2), row(3))
    assert plan(source)


def test_rows_of_all_sources_are_counted_together(tmp_path, write_jsonl, row) -> None:
    paths = [write_jsonl(tmp_path / f"{n}.jsonl", row(n), row(n + 10)) for n in range(2)]
    assert plan(*({"kind": "files", "path": str(path)} for path in paths))


def test_a_source_that_is_not_counted_is_enough(tmp_path, write_jsonl, row) -> None:
    (tmp_path / "array.jsonl").write_text("[\n{},\n{}]\n")
    assert plan({"kind": "files", "path": str(tmp_path)})


def test_files_of_code_are_counted_up_to_those_that_a_split_needs(tmp_path) -> None:
    source = {"kind": "folder", "path": str(tmp_path)}
    settings = check({"ingest": {"sources": [source]}}).ingest.sources
    for name in ("a.py", "b.go", "test_c.py", "d.txt"):
        (tmp_path / name).write_text("x = 1\n")
    assert few_files(settings) == 2
    (tmp_path / "c.py").write_text("x = 1\n")
    assert few_files(settings) is None
