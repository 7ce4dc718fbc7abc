import os

import pytest

from tasks.core.system import atomic_write
from tasks.core.system.atomic_write import write_text, written_whole


def test_the_new_content_replaces_the_old_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_flush_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_text(path, "one")

    def full(_descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_text(path, "two")
    assert path.read_text() == "one"


def test_file_and_folder_are_flushed_around_the_rename(tmp_path, monkeypatch):
    path, steps = tmp_path / "file.json", []
    flush = atomic_write.flush
    monkeypatch.setattr(
        atomic_write, "flush", lambda p: (steps.append((p.name, path.exists())), flush(p))
    )
    write_text(path, "one")
    assert steps == [(f"file.json.{os.getpid()}.tmp", False), (tmp_path.name, True)]
    write_text(path, "two", durable=False)
    assert len(steps) == 2


def test_a_large_file_gets_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "model.gguf"
    with written_whole(path) as temporary:
        temporary.write_bytes(b"weights")
        assert not path.exists()
    assert path.read_bytes() == b"weights"


def test_what_an_error_leaves_of_a_large_file_is_removed(tmp_path):
    path = tmp_path / "model.gguf"
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_bytes(b"wei")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
