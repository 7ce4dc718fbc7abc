from pathlib import Path

from tasks.ingestion import code_file
from tasks.ingestion.code_file import CodeFile
from tasks.ingestion.code_rows import CodeOptions, ExtractedCode, extract_file

GOOD = b'def f(x):\n    """Say x."""\n    return x\n'


OPTIONS = CodeOptions(keep_docstring=False, methods=True)


def read(folder: Path, content: bytes) -> ExtractedCode:
    (folder / "a.py").write_bytes(content)
    return extract_file(CodeFile(str(folder), "a.py", "s", "p", "1", "MIT", "e"), OPTIONS)


def test_broken_file_is_one_ledger_entry(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, b"def f(:\n").unreadable
    assert (entry.path, entry.line, entry.excerpt) == ("a.py", 1, "def f(:")


def test_file_of_unknown_size_is_read_to_its_end(tmp_path: Path, monkeypatch) -> None:
    text = b"def f():\n" + b"    x = 1\n" * 9
    (tmp_path / "a.py").write_bytes(text)

    class Size:
        st_size = 0  # as on /proc

    monkeypatch.setattr(code_file.os, "fstat", lambda _: Size)
    found = code_file.content_of(CodeFile(str(tmp_path), "a.py", "s", "p", "", "", ""))
    assert found == text


def test_file_that_vanished_is_one_ledger_entry(tmp_path: Path) -> None:
    file = CodeFile(str(tmp_path), "gone.py", "s", "p", "", "", "")
    (entry,) = extract_file(file, OPTIONS).unreadable
    assert entry.line == 0 and "can't be read" in entry.problem


def test_nul_byte_and_wrong_encoding_are_reported_with_their_line(tmp_path: Path) -> None:
    for content, problem in (
        (b"x = 1\n\0", "contains a NUL byte"),
        (b"x = 1\ny = 'caf\xe9'\n", "byte 0xe9 is not utf-8"),
    ):
        (entry,) = read(tmp_path, content).unreadable
        assert (entry.line, entry.problem) == (2, problem)


def test_header_of_a_file_overrides_the_license_of_the_package(tmp_path: Path) -> None:
    header = b"# SPDX-License-Identifier: GPL-3.0-only\n"
    assert [row.licence for row in read(tmp_path, GOOD).rows] == ["MIT"]
    assert [row.licence for row in read(tmp_path, header + GOOD).rows] == ["GPL-3.0-only"]
