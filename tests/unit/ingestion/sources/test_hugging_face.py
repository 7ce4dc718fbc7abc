import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.cache.digest_cache import sha256
from tasks.core.errors import PipelineError
from tasks.core.package_version import version
from tasks.core.settings.config import View, check
from tasks.ingestion.sources import digests as module
from tasks.ingestion.sources.digests import source_digests, source_names

ROWS = [{"instruction": f"do {n}", "output": f"x = {n}"} for n in range(5)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write(kind: str, folder: Path) -> None:
    import datasets

    folder.mkdir()
    table = datasets.Dataset.from_list(ROWS)
    if kind == "save_to_disk":
        table.save_to_disk(folder)
    elif kind == "save_to_disk of splits":
        datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(folder)
    elif kind == "parquet":
        (folder / "data").mkdir()
        table.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    elif kind == "csv":
        table.to_csv(folder / "train.csv")
    elif kind == "arrow":
        with (
            pa.OSFile(str(folder / "train.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.data.schema) as stream,
        ):
            stream.write_table(table.data.table)
    else:
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
        if kind == "jsonl":
            (folder / "train.jsonl").write_text(text)
        else:
            with gzip.open(folder / "train.jsonl.gz", "wt") as file:
                file.write(text)


KINDS = (
    "save_to_disk",
    "save_to_disk of splits",
    "parquet",
    "csv",
    "arrow",
    "jsonl",
    "jsonl in gzip",
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_local_form_gives_the_same_rows(ingest, tmp_path, kind) -> None:
    write(kind, tmp_path / "set")
    _, rows, bad = ingest({"kind": "huggingface", "path": str(tmp_path / "set")})
    assert [(r["instruction"], r["output"]) for r in rows] == [tuple(r.values()) for r in ROWS]
    assert not bad and {r["source"] for r in rows} == {"set"}
    assert [r["line"] for r in rows] == ([2, 3, 4, 5, 6] if kind == "csv" else [1, 2, 3, 4, 5])


def test_columns_are_mapped_as_for_files(ingest, tmp_path) -> None:
    (tmp_path / "train.jsonl").write_text('{"q": "do", "a": "x", "from": "p"}\n')
    columns = {"instruction": "q", "output": "a", "project": "from"}
    _, rows, _ = ingest({"kind": "huggingface", "path": str(tmp_path), "columns": columns})
    assert [(r["instruction"], r["output"], r["project"]) for r in rows] == [("do", "x", "p")]


def test_only_the_named_split_is_read(ingest, tmp_path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({**ROWS[0], "instruction": name}))
    _, rows, _ = ingest({"kind": "huggingface", "path": str(tmp_path), "split": "test"})
    assert [(r["instruction"], r["path"]) for r in rows] == [("test", "test.jsonl")]


def test_an_unknown_split_names_those_there_are(ingest, tmp_path) -> None:
    write("save_to_disk of splits", tmp_path / "set")
    with pytest.raises(PipelineError, match="no split 'dev'; its splits: test, train"):
        ingest({"kind": "huggingface", "path": str(tmp_path / "set"), "split": "dev"})


def test_a_bad_line_of_a_local_file_affects_no_other_row(ingest, tmp_path) -> None:
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[:2], "{oops", *lines[2:]]))
    _, rows, bad = ingest({"kind": "huggingface", "path": str(tmp_path)})
    assert len(rows) == 5 and [(b["path"], b["line"]) for b in bad] == [("train.jsonl", 3)]


def test_an_error_of_the_library_is_reported_with_its_first_lost_row(ingest, tmp_path) -> None:
    write("arrow", tmp_path / "set")
    file = tmp_path / "set" / "train.arrow"
    file.write_bytes(file.read_bytes()[:-200])
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "whole.parquet")
    _, _, bad = ingest(
        {"kind": "files", "path": str(tmp_path / "whole.parquet")},
        {"kind": "huggingface", "path": str(tmp_path / "set")},
    )
    assert len(bad) == 1 and bad[0]["path"] == "train.arrow"


def test_a_folder_without_data_is_refused(ingest, tmp_path) -> None:
    with pytest.raises(PipelineError, match="not a data set that `datasets` can read"):
        ingest({"kind": "huggingface", "path": str(tmp_path)})


def test_the_hub_is_asked_for_the_pinned_commit_and_streamed(ingest, monkeypatch) -> None:
    import datasets

    asked = {}

    def load(hub_id, **given):
        asked.update(given, id=hub_id)
        return datasets.Dataset.from_list(ROWS).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    commit = "ab" * 20
    given = {"kind": "huggingface", "hub_id": "me/tasks", "revision": commit}
    _, rows, _ = ingest(given)
    assert asked == {
        "id": "me/tasks",
        "name": None,
        "revision": commit,
        "split": "train",
        "streaming": True,
    }
    assert len(rows) == 5 and rows[0]["source"] == "tasks"


def test_an_unreachable_hub_names_what_to_do(ingest, monkeypatch) -> None:
    import datasets

    def fail(*_, **__):
        raise ConnectionError("no route\nto it")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    given = {"kind": "huggingface", "hub_id": "me/tasks", "revision": "ab" * 20}
    with pytest.raises(PipelineError, match=r"me/tasks at abababababab.*: no route\n") as error:
        ingest(given)
    assert "`path`" in error.value.remedy


def digests(*given: dict) -> dict[str, str]:
    config = check({"ingest": {"sources": list(given)}})
    return source_digests(View(config, ("ingest",), "ingest"), sha256)


def test_the_hub_is_keyed_by_id_and_commit(monkeypatch) -> None:
    monkeypatch.setattr(module, "pinned_commit", lambda *_: "cd" * 20)
    first = {"kind": "huggingface", "hub_id": "me/tasks", "revision": "ab" * 20}
    second = {"kind": "huggingface", "hub_id": "me/other"}
    assert digests(first, second) == {
        "tasks": f"me/tasks@{'ab' * 20}",
        "other": f"me/other@{'cd' * 20}",
        "library datasets": version("datasets"),
    }


def test_a_local_folder_is_keyed_by_content(tmp_path) -> None:
    (tmp_path / "train.jsonl").write_text("1")
    given = {"kind": "huggingface", "path": str(tmp_path)}
    before = digests(given)
    (tmp_path / "README.md").write_text("configs")
    assert digests(given) != before


def test_path_and_hub_id_together_or_neither_is_refused() -> None:
    for fields in ({}, {"path": "x", "hub_id": "a/b"}):
        with pytest.raises(PipelineError, match=r"path (and|nor) hub_id"):
            check({"ingest": {"sources": [{"kind": "huggingface", **fields}]}})


def test_names_come_from_the_folder_or_the_id() -> None:
    given = [{"kind": "huggingface", "hub_id": "a/b"}, {"kind": "huggingface", "path": "x/y"}]
    assert source_names(check({"ingest": {"sources": given}}).ingest.sources) == ["b", "y"]


def test_the_stage_does_not_import_datasets_for_other_sources() -> None:
    code = "import sys, tasks.ingestion.run; print('datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
