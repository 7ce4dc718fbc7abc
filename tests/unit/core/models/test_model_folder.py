import os
from pathlib import Path

import pytest

from tasks.core.models.model_folder import link_or_copy


def test_file_is_linked_and_not_copied(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("weights")
    (tmp_path / "snapshot").symlink_to(tmp_path / "blob")
    link_or_copy(tmp_path / "snapshot", tmp_path / "out")
    assert (tmp_path / "out").stat().st_ino == (tmp_path / "blob").stat().st_ino
    assert not (tmp_path / "out").is_symlink()


def test_file_is_copied_where_linking_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "blob").write_text("weights")
    link_or_copy(tmp_path / "blob", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "weights"
