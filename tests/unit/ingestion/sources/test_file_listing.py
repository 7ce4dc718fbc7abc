import os
from pathlib import Path

import pytest

from tasks.core.errors import PipelineError
from tasks.ingestion.sources.file_listing import list_code, list_data, walk


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    for name in ("d/b.jsonl", "d/a/c.csv", "d/note.txt", "d/.git/x.jsonl", "[odd]/x.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_folder_is_listed_at_all_levels_sorted_without_hidden_folders() -> None:
    listing = list_data("d")
    assert listing.files == ("a/c.csv", "b.jsonl") and listing.other_files == 1


@pytest.mark.parametrize("pattern", ["d/*.jsonl", "d/**/*.jsonl", "*/b.jsonl"])
def test_glob_starts_at_home(pattern: str, home: Path) -> None:
    listing = list_data(pattern)
    assert [
        (listing.root / f).relative_to(home).as_posix() for f in listing.files if ".git" not in f
    ] == ["d/b.jsonl"]


def test_folder_called_like_a_glob_is_a_folder() -> None:
    assert list_data("[odd]").files == ("x.jsonl",)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("gone", "does not exist"),
        ("gone/*.csv", "does not exist"),
        ("d/note.txt", "no data file"),
    ],
)
def test_nothing_to_read_names_the_place_and_the_formats(path: str, problem: str) -> None:
    with pytest.raises(PipelineError) as error:
        list_data(path)
    assert problem in error.value.problem and ".parquet" in error.value.remedy


def test_links_that_make_a_loop_end(home: Path) -> None:
    (home / "d" / "loop").symlink_to(home / "d")
    assert walk(home / "d", ".jsonl") == ["b.jsonl"]


def test_broken_link_is_listed_so_that_it_is_reported(home: Path) -> None:
    (home / "d" / "gone.jsonl").symlink_to("nowhere.jsonl")
    (home / "d" / "self.jsonl").symlink_to("self.jsonl")
    assert walk(home / "d", ".jsonl") == ["b.jsonl", "gone.jsonl", "self.jsonl"]


def test_pipe_is_not_read(home: Path) -> None:
    os.mkfifo(home / "d" / "pipe.jsonl")
    assert walk(home / "d", ".jsonl") == ["b.jsonl"]


def test_code_folder_leaves_tests_and_environments_out(home: Path) -> None:
    for name in ("m.py", "tests/x.py", "test_m.py", "venv/lib.py", "venv/pyvenv.cfg"):
        (home / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "src" / name).touch()
    assert list_code("src", include_tests=False).files == ("m.py",)
    assert list_code("src", include_tests=True).files == ("m.py", "test_m.py", "tests/x.py")


def test_code_folder_that_is_missing_is_an_error() -> None:
    with pytest.raises(PipelineError, match="is not a folder"):
        list_code("gone", include_tests=False)
