from pathlib import Path

import pytest

from tasks.ingestion.code_rows import (
    Chunk,
    CodeFile,
    decode,
    harvest,
)
from tasks.ingestion.languages.python import NotPythonError

GOOD = b'def f(x):\n    """Say x."""\n    return x\n'


def read(folder: Path, **files: bytes):
    for name, content in files.items():
        (folder / f"{name}.py").write_bytes(content)
    given = (CodeFile(str(folder), f"{name}.py", "s", "p", "1", "MIT", "e") for name in files)
    return harvest(Chunk(tuple(given), keep_docstring=False, methods=True))


def test_broken_file_is_one_ledger_entry_and_the_others_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, a=GOOD, b=b"def f(:\n", c=GOOD)
    assert [row.path for row in found.rows] == ["a.py", "c.py"]
    (entry,) = found.unreadable
    assert (entry.path, entry.line, entry.excerpt) == ("b.py", 1, "def f(:")


def test_file_that_vanished_is_one_ledger_entry(tmp_path: Path) -> None:
    file = CodeFile(str(tmp_path), "gone.py", "s", "p", "", "", "")
    (entry,) = harvest(Chunk((file,), False, True)).unreadable
    assert entry.line == 0 and "can't be read" in entry.problem


def test_nul_byte_and_wrong_encoding_tell_their_line(tmp_path: Path) -> None:
    found = read(tmp_path, a=b"x = 1\n\0", b=b"x = 1\ny = 'caf\xe9'\n")
    assert [(e.line, e.problem) for e in found.unreadable] == [
        (2, "holds a NUL byte"),
        (2, "byte 0xe9 is not utf-8"),
    ]


def test_declared_encoding_is_obeyed() -> None:
    assert "é" in decode(b"# coding: latin-1\nx = '\xe9'\n")


def test_unknown_declared_encoding_is_told() -> None:
    with pytest.raises(NotPythonError, match="wrong encoding"):
        decode(b"# coding: klingon\n")


def test_line_ends_of_other_systems_become_newlines() -> None:
    assert decode(b"a\r\nb\rc") == "a\nb\nc"


def test_header_of_a_file_goes_before_the_packages_licence(tmp_path: Path) -> None:
    found = read(tmp_path, a=GOOD, b=b"# SPDX-License-Identifier: GPL-3.0-only\n" + GOOD)
    assert [row.licence for row in found.rows] == ["MIT", "GPL-3.0-only"]
