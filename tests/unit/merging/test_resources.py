from collections import namedtuple

import pytest

from tasks.core.errors import PipelineError
from tasks.merging import resources

Usage = namedtuple("Usage", "total used free")
Memory = namedtuple("Memory", "available")


def test_too_little_disk_is_reported_with_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: Usage(0, 0, 2 * resources.GIB))
    with pytest.raises(PipelineError) as error:
        resources.check_disk(tmp_path, 5 * resources.GIB, copies=2)
    assert error.value.problem == "merging needs 10.5 GiB of disk and 2.0 GiB are free"
    assert "base16" in error.value.remedy


def test_too_little_memory_is_reported_with_both_numbers(monkeypatch):
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: Memory(3 * resources.GIB))
    with pytest.raises(PipelineError, match=r"needs 6\.0 GiB of memory and 3\.0 GiB"):
        resources.check_memory(5 * resources.GIB, resources.GIB)


def test_3b_model_fits_in_12_gib(monkeypatch):
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: Memory(12 * resources.GIB))
    assert resources.check_memory(2 * 2_795_443_200, 2 * resources.GIB) < 8


def test_gguf_files_count_after_the_best_is_selected(tmp_path, monkeypatch):
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: Usage(0, 0, 2 * resources.GIB))
    with pytest.raises(PipelineError, match=r"needs 12\.5 GiB of disk"):
        resources.check_disk(tmp_path, 5 * resources.GIB, copies=1, gguf_bytes=7 * resources.GIB)


def test_files_of_an_interrupted_run_need_no_space_again(tmp_path, monkeypatch):
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: Usage(0, 0, 2 * resources.GIB))
    resources.check_disk(tmp_path, 5 * resources.GIB, copies=2, present_bytes=9 * resources.GIB)
