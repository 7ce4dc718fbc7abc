"""Remedies that change the files of a source, each followed to the letter; the stage then gives
rows."""

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import PipelineError
from tasks.ingestion.formats.files import text_lines

GOOD = b'{"instruction": "do", "output": "x"}\n'
CODE = 'def add(a, b):\n    """Return the sum of two numbers, a and b."""\n    return a + b\n'


def chat(*messages: Any) -> bytes:
    return json.dumps({"messages": list(messages)}).encode() + b"\n"


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def history(turns: Any) -> bytes:
    record = {"instruction": "do", "output": "x", "history": turns}
    return json.dumps(record).encode() + b"\n"


def segments(label: bool) -> bytes:
    return json.dumps({"segments": [{"text": "x", "label": label}]}).encode() + b"\n"


ASKED, ANSWERED = said("user", "do"), said("assistant", "x")
IMAGE = {"type": "image_url", "image_url": {"url": "u"}}
# kind -> file, its content, what the remedy says, file and content after it has been followed
FILES: dict[str, tuple[str, bytes, str, str, bytes]] = {
    "quotes": (
        "a.csv",
        b"instruction,output\ndo,x, y\n",
        "put fields that contain a separator, a quote or a line end in quotes",
        "a.csv",
        b'instruction,output\ndo,"x, y"\n',
    ),
    "quote inside": (
        "a.csv",
        b'instruction,output\ndo,"x "y" z"\n',
        'write a quote inside as ""',
        "a.csv",
        b'instruction,output\ndo,"x ""y"" z"\n',
    ),
    "empty output": (
        "a.jsonl",
        b'{"instruction": "do", "output": ""}\n',
        "Fill in column output",
        "a.jsonl",
        GOOD,
    ),
    "empty column of another name": (
        "a.jsonl",
        b'{"question": "do", "the answer": ""}\n',
        "Fill in column the answer",
        "a.jsonl",
        b'{"question": "do", "the answer": "x"}\n',
    ),
    "history": (
        "a.jsonl",
        history(["before"]),
        "Write each earlier turn as [question, answer]",
        "a.jsonl",
        history([["before", "y"]]),
    ),
    "history as messages": (
        "a.jsonl",
        history(["before"]),
        "or as messages {role, content}",
        "a.jsonl",
        history([ASKED, ANSWERED]),
    ),
    "no answer": (
        "a.jsonl",
        chat(ASKED),
        "Add answers with the role assistant",
        "a.jsonl",
        chat(ASKED, ANSWERED),
    ),
    "roles": (
        "a.jsonl",
        chat(said("me", "do"), said("you", "x")),
        "Rename the roles to system, user, assistant and tool",
        "a.jsonl",
        chat(ASKED, ANSWERED),
    ),
    "images": (
        "a.jsonl",
        chat(said("user", [{"type": "text", "text": "do"}, IMAGE]), ANSWERED),
        "Remove images, audio and files from the messages",
        "a.jsonl",
        chat(said("user", [{"type": "text", "text": "do"}]), ANSWERED),
    ),
    "masks": (
        "a.jsonl",
        segments(False),
        "Set `label` to true for the segments to learn",
        "a.jsonl",
        segments(True),
    ),
    "masks of other names": (
        "a.jsonl",
        b'{"segments": [{"text": "x", "mask": 1}]}\n',
        "Give each segment a field `label`: true for text to learn",
        "a.jsonl",
        segments(True),
    ),
    "half of a character": (
        "a.jsonl",
        b'{"instruction": "do", "output": "x\\ud83d"}\n',
        r"Write both halves, as in \ud83d\ude00",
        "a.jsonl",
        b'{"instruction": "do", "output": "x\\ud83d\\ude00"}\n',
    ),
    "names of columns": (
        "a.csv",
        b"instruction,output,output\ndo,x,y\n",
        "Give each column a name of its own in the first line",
        "a.csv",
        b"instruction,output,other\ndo,x,y\n",
    ),
    "comments": (
        "a.json",
        b'[\n{"instruction": "do", // what\n "output": "x"}\n]\n',
        "Remove the comments from the file",
        "a.json",
        b'[\n{"instruction": "do",\n "output": "x"}\n]\n',
    ),
    "name of another format": (
        "a.parquet",
        GOOD,
        "Give the file the extension of its format",
        "a.jsonl",
        GOOD,
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_read_once_it_is_changed_as_the_remedy_says(ingest, tmp_path, kind) -> None:
    name, content, says, new_name, new_content = FILES[kind]
    (tmp_path / name).write_bytes(content)
    columns = {"output": "the answer"} if "the answer" in content.decode() else {}
    source = {"kind": "files", "path": str(tmp_path), "columns": columns}
    with pytest.raises(PipelineError, match="0 rows") as error:
        ingest(source)
    assert says in error.value.remedy
    (tmp_path / name).unlink()
    (tmp_path / new_name).write_bytes(new_content)
    assert ingest(source)[1]


def zipped(path: Path, member: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(member, member.name)


def tarred(path: Path, member: Path) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        archive.add(member, member.name)


@pytest.mark.parametrize("name", ["a.zip", "a.jsonl", "a.tar", "a.tar.gz"])
def test_an_archive_is_named_and_its_files_are_read_once_they_are_unpacked(
    ingest, tmp_path, name
) -> None:
    member, path = tmp_path / "rows.jsonl", tmp_path / name
    member.write_bytes(GOOD)
    (tarred if "tar" in name else zipped)(path, member)
    with pytest.raises(PipelineError, match=r"is a (zip|tar) archive") as error:
        ingest({"kind": "files", "path": str(path)})
    assert error.value.remedy == "Unpack the archive and point `path` to the files in it."
    shutil.unpack_archive(path, tmp_path / "out", "zip" if name == "a.jsonl" else None)
    assert ingest({"kind": "files", "path": str(tmp_path / "out" / "rows.jsonl")})[1]


def test_a_spreadsheet_is_read_once_it_is_exported(ingest, tmp_path) -> None:
    zipped(tmp_path / "a.xlsx", Path(__file__))
    with pytest.raises(PipelineError, match="is a spreadsheet") as error:
        ingest({"kind": "files", "path": str(tmp_path / "a.xlsx")})
    assert "Export the sheet as CSV" in error.value.remedy
    (tmp_path / "a.csv").write_text("instruction,output\ndo,x\n")
    assert ingest({"kind": "files", "path": str(tmp_path / "a.csv")})[1]


def test_records_that_are_too_long_are_read_once_they_are_split(
    ingest, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(text_lines, "MAX_RECORD", 50)
    source = {"kind": "files", "path": str(tmp_path / "a.jsonl")}
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x" * 60}))
    with pytest.raises(PipelineError, match="longer than 50 bytes") as error:
        ingest(source)
    assert "Split the file into smaller records" in error.value.remedy
    (tmp_path / "a.jsonl").write_text((json.dumps({"text": "x" * 30}) + "\n") * 2)
    assert len(ingest(source)[1]) == 2


def test_damaged_compressed_data_is_read_once_the_file_is_copied_again(ingest, tmp_path) -> None:
    path, packed = tmp_path / "a.jsonl.gz", gzip.compress(GOOD * 500)
    path.write_bytes(packed[:20])
    source = {"kind": "files", "path": str(path)}
    with pytest.raises(PipelineError) as error:
        ingest(source)
    assert "Copy or download the file again" in error.value.remedy
    path.write_bytes(packed)
    assert len(ingest(source)[1]) == 500


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_read_after_the_command_of_the_remedy(
    ingest, tmp_path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    path.chmod(0)
    with pytest.raises(PipelineError, match="Permission denied") as error:
        ingest({"kind": "files", "path": str(path)})
    (command,) = re.findall(r"`(.+?)`", error.value.remedy)
    subprocess.run(command.replace("FILE", str(path)), shell=True, check=True)  # as the user would
    assert ingest({"kind": "files", "path": str(path)})[1]


@pytest.mark.parametrize("path", ["gone", "notes"])
def test_a_path_without_data_is_read_once_it_is_a_file_a_folder_or_a_glob_as_the_remedy_says(
    ingest, tmp_path, monkeypatch, path
) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(PipelineError) as error:
        ingest({"kind": "files", "path": path})
    assert f"a relative path starts at {tmp_path}." in error.value.remedy
    listed, packed = re.findall(r"(\.\w+(?:, \.\w+)+)", error.value.remedy)
    contents = dict.fromkeys((".jsonl", ".ndjson", ".json"), GOOD)
    contents |= {".csv": b"instruction,output\ndo,x\n", ".tsv": b"instruction\toutput\ndo\tx\n"}
    endings = [ending for ending in listed.split(", ") if ending != ".parquet"]
    assert set(endings) == set(contents) and packed == ".gz, .zst, .bz2, .xz"
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    folder = tmp_path / "in"
    folder.mkdir()
    for ending in endings:
        (folder / f"a{ending}").write_bytes(contents[ending])
    for ending, pack in packers.items():
        (folder / f"b.csv{ending}").write_bytes(pack(contents[".csv"]))
    count = len(endings) + len(packers)
    assert len(ingest({"kind": "files", "path": "in"})[1]) == count
    assert len(ingest({"kind": "files", "path": "in/*"})[1]) == count
    assert ingest({"kind": "files", "path": "in/a.csv"})[1]


def test_a_package_that_resembles_none_is_read_once_an_installed_one_is_named(
    ingest, tmp_path, monkeypatch
) -> None:
    (tmp_path / "add.py").write_text(CODE)
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    with pytest.raises(PipelineError, match="not installed") as error:
        ingest({"kind": "packages", "names": ["q0-q0-q0-q0"]})
    (name,) = re.findall(r'"(\w+)" is the standard library', error.value.remedy)
    assert ingest({"kind": "packages", "names": [name]})[1]


def test_a_folder_of_a_data_set_is_read_once_the_path_leads_to_one(ingest, tmp_path) -> None:
    source = {"kind": "huggingface", "path": str(tmp_path / "gone")}
    with pytest.raises(PipelineError, match="is not a folder") as error:
        ingest(source)
    assert "Point its `path` to a data set's folder" in error.value.remedy
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(GOOD)
    assert ingest(source | {"path": str(tmp_path / "set")})[1]


def test_a_split_that_is_not_there_is_read_once_one_of_the_listed_is_named(
    ingest, tmp_path
) -> None:
    (tmp_path / "test.jsonl").write_bytes(GOOD)
    source = {"kind": "huggingface", "path": str(tmp_path)}
    with pytest.raises(PipelineError) as error:
        ingest(source)
    (split,) = re.findall(r"its splits: (\w+)", error.value.problem)
    assert "Set `split` of the source to one of them" in error.value.remedy
    assert ingest(source | {"split": split})[1]


@pytest.mark.parametrize("is_repository", [True, False])
def test_a_folder_without_commits_is_read_as_kind_folder_as_the_remedy_says(
    ingest, tmp_path, is_repository
) -> None:
    (tmp_path / "a.py").write_text(CODE)
    if is_repository:
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
    with pytest.raises(PipelineError) as error:
        ingest({"kind": "git", "path": str(tmp_path)})
    assert "`kind: folder`" in error.value.remedy
    assert ingest({"kind": "folder", "path": str(tmp_path)})[1]


def test_files_without_rows_are_an_error_whose_remedy_works(ingest, tmp_path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    source = {"kind": "folder", "path": str(tmp_path)}
    with pytest.raises(PipelineError, match="found no rows") as error:
        ingest(source)
    assert "or to code with documented functions" in error.value.remedy
    (tmp_path / "a.py").write_text(CODE)
    assert ingest(source)[1]


def test_code_in_python_2_is_read_once_it_is_python_3(ingest, tmp_path) -> None:
    source = {"kind": "folder", "path": str(tmp_path)}
    (tmp_path / "a.py").write_text(CODE.replace("return", "print"))
    with pytest.raises(PipelineError) as error:
        ingest(source)
    assert "Point `path` to Python 3 code" in error.value.remedy
    (tmp_path / "a.py").write_text(CODE)
    assert ingest(source)[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository of one commit, which is a full clone."""
    place = tmp_path / "clone"
    place.mkdir()
    (place / "a.py").write_text(CODE)
    who = ("-c", "user.name=Mia", "-c", "user.email=mia@example.org")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "Add a function")):
        subprocess.run(["git", "-C", place, *words], check=True)
    return place


def test_a_damaged_repository_is_read_once_the_path_leads_to_a_full_clone(
    ingest, tmp_path, clone
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(clone, damaged)
    for file in (damaged / ".git" / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"")
    with pytest.raises(PipelineError) as error:
        ingest({"kind": "git", "path": str(damaged)})
    assert "point `path` to a full clone" in error.value.remedy
    assert ingest({"kind": "git", "path": str(clone)})[1]


def test_a_revision_that_is_not_there_is_read_once_a_listed_branch_is_named(ingest, clone) -> None:
    source = {"kind": "git", "path": str(clone)}
    with pytest.raises(PipelineError) as error:
        ingest(source | {"revision": "gone"})
    (branch,) = re.findall(r"such as: (\w+)\.", error.value.remedy)
    assert ingest(source | {"revision": branch})[1]


def test_a_repository_is_read_once_git_is_installed(ingest, clone, monkeypatch) -> None:
    source = {"kind": "git", "path": str(clone)}
    with monkeypatch.context() as without_git:
        without_git.setenv("PATH", "")
        with pytest.raises(PipelineError, match="git is not installed") as error:
            ingest(source)
    assert error.value.remedy == "Install git."
    assert ingest(source)[1]
