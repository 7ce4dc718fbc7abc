from pathlib import Path

import pytest

from tasks.base.model_source import locate
from tasks.core.errors import PipelineError
from tasks.core.settings.config import check

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that can't be imported, with a GGUF file and its licence."""
    folder, info = tmp_path / "tiny_model", tmp_path / "tiny_model-1.0.dist-info"
    folder.mkdir()
    info.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "tiny.gguf").write_bytes(b"GGUF rest")
    (info / "LICENSE").write_text("free")
    (info / "METADATA").write_text("Name: tiny-model\nLicense: Apache-2.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_file_in_a_package_is_found_without_importing_the_package(package: Path) -> None:
    source = locate("a/b", None, None, "package:tiny_model/tiny.gguf")
    assert source.gguf == package / "tiny.gguf"
    assert source.name == "package tiny_model: tiny.gguf"
    assert [note.name for note in source.notes] == ["LICENSE", "METADATA"]


@pytest.mark.parametrize(
    ("gguf", "problem"),
    [
        ("package:tiny_model/../x.gguf", "is not package:NAME/FILE"),
        ("package:tiny_model//etc/passwd", "is not package:NAME/FILE"),
        ("package:tiny_model", "is not package:NAME/FILE"),
        ("package:no_such_package/x.gguf", "no_such_package is not installed"),
        ("package:tiny_model/other.gguf", "no file at"),
        ("package:tiny_model/__init__.py", "begins with b'rais'"),
        ("/nowhere/x.gguf", "no file at /nowhere/x.gguf"),
    ],
)
def test_missing_gguf_file_is_an_error(package: Path, gguf: str, problem: str) -> None:
    with pytest.raises(PipelineError, match=problem):
        locate("a/b", None, None, gguf)


def test_hub_model_without_a_commit_is_an_error_with_the_place_to_find_one() -> None:
    with pytest.raises(
        PipelineError, match=r"no commit of a/b is pinned[^\n]*\n.*huggingface\.co/a/b/commits"
    ):
        locate("a/b", None, None, None)


def test_hub_model_is_named_by_its_commit() -> None:
    assert locate("a/b", COMMIT, None, None).name == f"a/b@{COMMIT}"


def test_branch_is_rejected_as_a_commit() -> None:
    with pytest.raises(PipelineError, match=r"base\.revision"):
        check({"base": {"revision": "main"}})


def test_local_model_overrides_the_hub_model(tmp_path: Path) -> None:
    assert locate("a/b", COMMIT, str(tmp_path), None).folder == tmp_path


def test_two_local_models_are_rejected() -> None:
    with pytest.raises(PipelineError, match="both select a base model"):
        check({"base": {"path": "x", "gguf": "y.gguf"}})


def test_missing_folder_is_an_error() -> None:
    with pytest.raises(PipelineError, match="no folder at /nowhere"):
        locate("a/b", None, "/nowhere", None)
