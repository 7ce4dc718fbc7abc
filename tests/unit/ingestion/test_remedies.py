"""Every remedy is followed to the letter, and the stage then gives rows."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.files import parquet
from tasks.ingestion.remedies import OTHERWISE, REMEDIES, remedy_for


def settings_in(remedy: str) -> dict[str, Any]:
    """The settings of the source that a remedy shows."""
    found: dict[str, Any] = {}
    for text in re.findall(r"`([a-z_]+: [^`]+)`", remedy):
        found |= yaml.safe_load(text)
    return found


@pytest.mark.parametrize(
    "record",
    [
        {"task": {"text": "do"}, "answers": [{"body": "x"}]},
        {"instruction": "do", "outputs": "x"},
        {"the task: all": "do", "yes": "x", "id": 3},
        {"the question": "do", "the answer": "x"},
        {"a.b": "do", "c": ["x", "y"]},
        {"from": "do", "to": "x"},
        {"messages": [{"role": "user", "content": "do"}, {"role": "assistant", "content": "x"}]},
        {"text": "x", "n": 1},
    ],
)
@pytest.mark.parametrize("given", [{}, {"columns": {"output": "wrong"}}, {"format": "instruction"}])
def test_remedy_for_missing_columns_works(ingest, tmp_path, record, given) -> None:
    (tmp_path / "a.jsonl").write_text((json.dumps(record) + "\n") * 2)
    source = {"kind": "files", "path": str(tmp_path / "a.jsonl")}
    try:
        rows = ingest({**source, **given})[1]
    except PipelineError as error:
        changed = {**source, **given} | settings_in(error.remedy)
        if "remove `columns`" in error.remedy:
            changed.pop("columns")
        rows = ingest(changed)[1]
    assert [row["output"].strip() for row in rows] == ["x", "x"]


PAIR = {"prompt": "do", "chosen": "x", "rejected": "y"}
CHAT = {"messages": [{"role": "user", "content": "do"}, {"role": "assistant", "content": "x"}]}
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str, dict[str, Any] | None]] = {
    "ambiguous": ({"question": "do", "response": "x", "answer": "y"}, {}, "could be", None),
    "pairs": (PAIR, {}, "preference pairs", None),
    "columns of another format, removed": (
        CHAT,
        {"format": "messages", "columns": {"output": "b"}},
        "`columns` names output, which format messages does not have",
        {"columns": {}},
    ),
    "format, removed": (
        {"question": "do", "b": "x"},
        {"format": "messages", "columns": {"output": "b"}},
        "Remove output from `columns`, or remove `format`",
        {"format": None},
    ),
    "columns of two formats": (
        {"a": "do", "b": "x"},
        {"columns": {"instruction": "a", "output": "b", "messages": "c"}},
        "which no format has together",
        {"columns": {"instruction": "a", "output": "b"}},
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_remedy_of_settings_that_do_not_fit_works(ingest, tmp_path, write_jsonl, kind) -> None:
    record, given, problem, followed = SETTINGS[kind]
    write_jsonl(tmp_path / "a.jsonl", record)
    source = {"kind": "files", "path": str(tmp_path / "a.jsonl"), **given}
    with pytest.raises(PipelineError, match=re.escape(problem)) as error:
        ingest(source)
    shown = settings_in(error.value.remedy.split(" or `")[0])
    assert ingest(source | (shown if followed is None else followed))[1]


def test_chat_in_an_unknown_form_is_read_once_it_is_written_as_the_remedy_says(
    ingest, tmp_path, write_jsonl
) -> None:
    unknown = {"talk": [{"speaker": "user", "words": "do"}, {"speaker": "assistant", "words": "x"}]}
    write_jsonl(tmp_path / "a.jsonl", unknown, unknown)
    source = {"kind": "files", "path": str(tmp_path / "a.jsonl")}
    with pytest.raises(PipelineError, match="a chat format that is not known") as error:
        ingest(source)
    assert "{role, content}" in error.value.remedy
    turns = [{"role": t["speaker"], "content": t["words"]} for t in unknown["talk"]]
    write_jsonl(tmp_path / "a.jsonl", {"talk": turns}, {"talk": turns})
    assert ingest(source)[1]


def test_remedy_names_no_column_that_has_a_role(ingest, tmp_path, write_jsonl) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"instruction": "do", "input": "x"})
    with pytest.raises(PipelineError) as error:
        ingest({"kind": "files", "path": str(path)})
    assert error.value.remedy == (
        "Add a column 'output' to the file, or point `path` to a file that has it."
    )


def test_remedy_for_a_path_names_the_paths_there_are(ingest, tmp_path, write_jsonl) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"instruction": "do", "answers": [{"body": "x"}]})
    with pytest.raises(PipelineError, match=r"'answers\.0\.text'; its columns are .*answers\.0\.b"):
        ingest({"kind": "files", "path": str(path), "columns": {"output": "answers.0.text"}})


def test_a_table_without_column_names_is_read_once_it_has_them(ingest, tmp_path) -> None:
    file = tmp_path / "a.csv"
    rows = "".join(
        f'Return {n} times the argument.,"def f(x):\n    return {n} * x"\n' for n in (2, 3)
    )
    file.write_text(rows)
    source = {"kind": "files", "path": str(file)}
    with pytest.raises(PipelineError, match="first line holds values, not the names of its 2") as e:
        ingest(source)
    assert "a first line" in e.value.remedy and "`instruction` and `output`" in e.value.remedy
    file.write_text("instruction,output\n" + rows)
    assert len(ingest(source)[1]) == 2


FILES: dict[str, bytes] = {
    "list": b'{"instruction": "do", "output": ["x"]}\n',
    "number": b'{"instruction": "do", "output": 7}\n',
    "dict": b'{"instruction": "do", "output": {"text": "x"}}\n',
    "number under another name": b'{"question": "do", "answer": 7}\n',
    "list under another name": b'{"question": "do", "answer": ["x"]}\n',
    "no instruction": b'{"instruction": "", "output": "x"}\n',
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_remedy_that_names_settings_works(ingest, tmp_path, content) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    source = {"kind": "files", "path": str(tmp_path / "a.jsonl")}
    with pytest.raises(PipelineError, match="0 rows") as error:
        ingest(source)
    assert ingest(source | settings_in(error.value.remedy))[1]


COMMANDS: dict[str, bytes] = {
    "utf-32": '{"instruction": "do", "output": "x"}\n'.encode("utf-32"),
    "latin-1": '{"instruction": "caf\xe9", "output": "x"}\n'.encode("latin-1"),
}


@pytest.mark.parametrize("content", COMMANDS.values(), ids=COMMANDS)
def test_remedy_that_names_a_command_works(ingest, tmp_path, content) -> None:
    file, new = tmp_path / "a.jsonl", tmp_path / "new.jsonl"
    file.write_bytes(content)
    with pytest.raises(PipelineError, match="0 rows") as error:
        ingest({"kind": "files", "path": str(file)})
    (command,) = re.findall(r"`(.+?)`", error.value.remedy)
    command = command.replace("FILE", str(file)).replace("NEW", str(new))
    subprocess.run(command, shell=True, check=True)  # as the user would
    assert ingest({"kind": "files", "path": str(new)})[1]


CODE = 'def add(a, b):\n    """Return the sum of two numbers, a and b."""\n    return a + b\n'
FOLDERS: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, Any]]] = {
    "only tests": ({"tests/test_a.py": CODE}, {}, {"include_tests": True}),
    "another language": ({"a.py": CODE}, {"languages": ["go"]}, {"languages": []}),
    "no code": ({"notes.txt": "x"}, {}, {"path": "code"}),
    "no folder": ({}, {"path": "gone"}, {"path": "code"}),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_remedy_for_a_folder_without_code_works(ingest, tmp_path, kind) -> None:
    files, given, followed = FOLDERS[kind]
    for name, text in {**{f"source/{n}": t for n, t in files.items()}, "code/a.py": CODE}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    source = {"kind": "folder", "path": "source", **given}
    source["path"] = str(tmp_path / source["path"])
    with pytest.raises(PipelineError) as error:
        ingest(source)
    shown = settings_in(error.value.remedy)
    assert shown.items() <= followed.items() and all(n in error.value.remedy for n in followed)
    if "path" in followed:
        followed = {"path": str(tmp_path / followed["path"])}
    assert ingest(source | followed)[1]


@pytest.mark.parametrize(
    ("language", "text"),
    [("Chinese", "函数"), ("Japanese", "関数です"), ("Korean", "함수"), ("Russian", "Функция")],
)
def test_remedy_for_an_encoding_names_that_of_a_language(ingest, tmp_path, language, text) -> None:
    encodings = {"Chinese": "gb18030", "Japanese": "shift_jis", "Korean": "cp949"}
    file, new = tmp_path / "a.jsonl", tmp_path / "new.jsonl"
    content = json.dumps({"instruction": "do", "output": text}, ensure_ascii=False)
    file.write_bytes(content.encode(encodings.get(language, "windows-1251")))
    with pytest.raises(PipelineError, match="not UTF-8") as error:
        ingest({"kind": "files", "path": str(file)})
    (command,) = re.findall(r"`(.+?)`", error.value.remedy)
    (encoding,) = re.findall(rf"of {language}: ([\w-]+)", error.value.remedy)
    command = command.replace("WINDOWS-1252", encoding).replace("FILE", str(file))
    subprocess.run(command.replace("NEW", str(new)), shell=True, check=True)  # as the user would
    assert ingest({"kind": "files", "path": str(new)})[1][0]["output"] == text


def distribution(site: Path, record: str) -> None:
    """An installed package whose files are not where it says."""
    (site / "oddly-1.0.dist-info").mkdir(parents=True)
    (site / "oddly-1.0.dist-info" / "METADATA").write_text("Name: oddly\nVersion: 1.0\n")
    (site / "oddly-1.0.dist-info" / "RECORD").write_text(record)


def test_remedy_for_an_editable_install_works(ingest, tmp_path, monkeypatch) -> None:
    distribution(tmp_path / "site", "oddly-1.0.dist-info/METADATA,,\n")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(PipelineError, match="has no Python file") as error:
        ingest({"kind": "packages", "names": ["oddly"]})
    assert "add its source tree as a source of kind `folder`" in error.value.remedy
    assert ingest({"kind": "folder", "path": str(tmp_path / "tree")})[1]


def test_remedy_for_a_misspelled_package_works(ingest, tmp_path, monkeypatch) -> None:
    distribution(tmp_path, "oddly.py,,\n")
    (tmp_path / "oddly.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PipelineError, match="not installed") as error:
        ingest({"kind": "packages", "names": ["odly"]})
    (name,) = re.findall(r"Did you mean '(.+?)'", error.value.remedy)
    assert ingest({"kind": "packages", "names": [name]})[1]


def test_remedy_for_a_data_set_without_splits_works(ingest, tmp_path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"instruction": "do", "output": "x"}])
    datasets.DatasetDict({}).save_to_disk(tmp_path / "set")
    source = {"kind": "huggingface", "path": str(tmp_path / "set")}
    with pytest.raises(PipelineError, match="its splits: none") as error:
        ingest(source)
    assert "Write it again with `save_to_disk`" in error.value.remedy
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "set")
    assert ingest(source)[1]


@pytest.mark.parametrize(
    "content", ['["do", "x"]', '["x", "y"]', '[["do", "x"], ["and", "y"]]', '"x"\n"y"\n', "{oops"]
)
def test_json_that_holds_no_objects_is_read_once_it_is_written_as_the_remedy_says(
    ingest, tmp_path, content
) -> None:
    (tmp_path / "a.json").write_text(content)
    source = {"kind": "files", "path": str(tmp_path / "a.json")}
    with pytest.raises(PipelineError, match="0 rows") as error:
        ingest(source)
    for example in re.findall(r"\{.+?\}", error.value.remedy):
        (tmp_path / "a.json").write_text(f"{example}\n{example}\n")
        assert len(ingest(source)[1]) == 2


def test_a_compressed_parquet_file_is_read_once_it_is_unpacked(ingest, tmp_path) -> None:
    pq.write_table(pa.table({"instruction": ["do"], "output": ["x"]}), tmp_path / "a.parquet")
    file = tmp_path / "a.parquet"
    subprocess.run(["gzip", file], check=True)
    with pytest.raises(PipelineError, match="0 rows") as error:
        ingest({"kind": "files", "path": f"{file}.gz"})
    (command,) = re.findall(r"`(.+?)`", error.value.remedy)
    subprocess.run(command.replace("FILE", f"{file}.gz"), shell=True, check=True)  # as the user
    assert ingest({"kind": "files", "path": str(file)})[1]


def test_a_file_with_large_pages_is_noted_and_small_once_it_is_rewritten(
    ingest, tmp_path, monkeypatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(parquet, "say", said.append)
    monkeypatch.setattr(parquet, "LARGE_PAGE_BYTES", 4000)
    table = pa.table({"instruction": [f"do {n}" for n in range(90)], "output": ["x" * 50] * 90})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    assert len(ingest({"kind": "files", "path": str(tmp_path / "a.parquet")})[1]) == 90
    (command,) = re.findall(r"`(.+?)`", said.pop())
    for name in ("FILE", "NEW"):
        path = tmp_path / ("a.parquet" if name == "FILE" else "b.parquet")
        command = command.replace(name, str(path))
    command = command.replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, check=True)  # as the user would
    assert len(ingest({"kind": "files", "path": str(tmp_path / "b.parquet")})[1]) == 90
    assert not said


def test_a_pointer_of_git_lfs_is_called_one_and_read_once_it_is_fetched(ingest, tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(PipelineError, match="is a pointer of Git LFS") as error:
        ingest({"kind": "files", "path": str(file)})
    assert "`git lfs pull`" in error.value.remedy
    file.write_text('{"instruction": "do", "output": "x"}\n')
    assert ingest({"kind": "files", "path": str(file)})[1]


def test_a_folder_in_an_unknown_language_is_an_error_that_names_it(ingest, tmp_path) -> None:
    (tmp_path / "a.f90").write_text("end\n")
    with pytest.raises(PipelineError, match=r"1 files that are not code: f90; known: Python, "):
        ingest({"kind": "folder", "path": str(tmp_path)})


def test_text_that_is_no_code_is_read_with_the_settings_of_the_remedy(ingest, tmp_path) -> None:
    (tmp_path / "README.md").write_text("# Title\n\nWhat it does.\n")
    (tmp_path / "LICENSE.md").write_text("Do what you like.\n")
    source = {"kind": "folder", "path": str(tmp_path)}
    with pytest.raises(PipelineError) as error:
        ingest(source)
    settings = re.findall(r"`(\w+): (\[[^`]*\])`", error.value.remedy)
    _, rows, _ = ingest(source | {name: yaml.safe_load(value) for name, value in settings})
    found = [(row["kind"], row["language"], row["path"]) for row in rows]
    assert found == [("file", "markdown", "README.md")]


def test_a_language_without_a_grammar_gives_files_and_a_count_instead_of_functions(
    ingest, tmp_path
) -> None:
    (tmp_path / "a.lua").write_text("local a = 1\n\nfunction f()\n  return a\nend\n" * 3)
    source = {"kind": "folder", "path": str(tmp_path)}
    summary, rows, _ = ingest(source | {"rows": ["functions", "files", "fill"]})
    assert {(row["kind"], row["language"]) for row in rows} == {("file", "lua"), ("fill", "lua")}
    assert summary.counts["files in languages whose functions are not known"] == 1


def test_nul_bytes_are_removed_by_the_command_of_the_remedy(tmp_path: Path) -> None:
    file, new = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"a\0b")
    (command,) = re.findall(r"`(.+?)`", remedy_for("output contains a NUL byte"))
    command = command.replace("FILE", str(file)).replace("NEW", str(new))
    subprocess.run(command, shell=True, check=True)  # as the user would
    assert new.read_bytes() == b"ab"


def test_every_kind_of_problem_has_a_remedy_of_its_own() -> None:
    remedies = [remedy for _, remedy in REMEDIES]
    assert len(set(remedies)) == len(remedies) and OTHERWISE not in remedies


def test_the_most_frequent_problem_is_reported_not_the_first(ingest, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text("{oops\n" + '{"instruction": "do", "output": ""}\n' * 3)
    with pytest.raises(PipelineError, match="output is empty") as error:
        ingest({"kind": "files", "path": str(tmp_path)})
    assert "Fill in column output" in error.value.remedy
