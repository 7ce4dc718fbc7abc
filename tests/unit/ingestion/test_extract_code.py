from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.languages.protocol import DoctestCandidate
from tasks.core.stage import Work
from tasks.ingestion import extract_code
from tasks.ingestion.code_file import CodeFile
from tasks.ingestion.code_rows import CodeOptions, ExtractedCode, extract_file
from tasks.ingestion.extract_code import extract

CODE = '''def f{n}(x):
    """Say what {n} is, in words.

    >>> f{n}(1)
    {n}
    >>> f{n}(2)
    {n}
    """
    return {n}
'''
READ: list[str] = []


def write(folder: Path, count: int) -> list[CodeFile]:
    folder.mkdir(exist_ok=True)
    for n in range(count):
        (folder / f"{n}.py").write_text(CODE.format(n=n))
    (folder / "broken.py").write_bytes(b"def f(:\n\xff")
    return [*files(folder, range(count)), *files(folder, ["broken", "absent"])]


def files(folder: Path, names) -> Iterator[CodeFile]:
    return (CodeFile(str(folder), f"{n}.py", "s", "p\udcff", "1", "MIT", "e") for n in names)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    def noted(file: CodeFile, options: CodeOptions) -> ExtractedCode:
        READ.append(file.path)
        return extract_file(file, options)

    monkeypatch.setattr(extract_code, "extract_file", noted)
    (tmp_path / "scratch").mkdir()
    return Work(tmp_path, tmp_path / "scratch", tmp_path / "shards", "code")


def found(files: list[CodeFile], work: Work, doctests: bool = True) -> list[ExtractedCode]:
    READ.clear()
    return list(extract(files, len(files), "s", CodeOptions(False, True, doctests), work, 1))


def test_what_a_file_gives_is_the_same_fresh_and_cached(work: Work, tmp_path: Path) -> None:
    given = write(tmp_path / "code", 3)
    wanted = [extract_file(file, CodeOptions(False, True, True)) for file in given]
    assert found(given, work) == wanted and DoctestCandidate(*wanted[0].candidates[0][1:]).test
    assert found(given, work) == wanted and READ == []
    assert wanted[3].unreadable and wanted[4].unreadable


def test_only_an_edited_file_is_parsed_again(work: Work, tmp_path: Path) -> None:
    given = write(tmp_path / "code", 9)
    found(given, work)
    (tmp_path / "code" / "4.py").write_text(CODE.format(n=44))
    assert found(given, work)[4].rows[0].instruction.startswith("Say what 44 is")
    assert READ == ["4.py"]


def test_the_same_files_in_another_folder_are_cached(work: Work, tmp_path: Path) -> None:
    found(write(tmp_path / "code", 3)[:3], work)
    assert len(found(write(tmp_path / "copy", 3)[:3], work)) == 3 and READ == []


def test_other_options_parse_all_files_again(work: Work, tmp_path: Path) -> None:
    given = write(tmp_path / "code", 3)
    found(given, work)
    found(given, work, doctests=False)
    assert len(READ) == len(given)
