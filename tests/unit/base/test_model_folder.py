import json
import os
from pathlib import Path

import pytest

from tasks.base.model_folder import (
    INDEX,
    SINGLE,
    count_parameters,
    link,
    model_files,
    weight_files,
)
from tasks.core.errors import PipelineError


def test_only_files_that_matter_are_taken(model_folder: Path) -> None:
    for name in ("training_args.bin", "adapter_model.safetensors", "notes.txt"):
        (model_folder / name).write_text("x")
    assert {file.name for file in model_files(model_folder)} == {
        "LICENSE.md",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer"),
        (SINGLE, "has neither model.safetensors nor"),
    ],
)
def test_a_folder_without_a_part_names_it(model_folder: Path, missing: str, problem: str) -> None:
    (model_folder / missing).unlink()
    with pytest.raises(PipelineError, match=problem):
        model_files(model_folder)


def test_weights_that_can_run_code_are_refused(model_folder: Path) -> None:
    (model_folder / SINGLE).rename(model_folder / "pytorch_model.bin")
    with pytest.raises(PipelineError, match=r"only as pytorch_model\.bin.*\nUse a revision with"):
        model_files(model_folder)


def test_an_index_that_names_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "model-1.safetensors").touch()
    with pytest.raises(PipelineError, match=r"1 of 2 shards .* first model-2\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "model-2.safetensors").touch()
    assert len(weight_files(tmp_path)) == 3


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "in/x.safetensors"])
def test_an_index_cannot_name_a_shard_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "x.safetensors").touch()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(PipelineError, match="outside of its folder"):
        weight_files(folder)


def test_parameters_are_counted_from_the_header(saved_model: Path) -> None:
    assert (
        count_parameters(saved_model / SINGLE)
        == 2 * 257 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"\x05" + bytes(20)],
)
def test_a_file_that_is_no_safetensors_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SINGLE).write_bytes(content)
    with pytest.raises(PipelineError, match="no whole safetensors file"):
        count_parameters(tmp_path / SINGLE)


def test_a_download_that_was_cut_off_is_an_error(model_folder: Path) -> None:
    whole = (model_folder / SINGLE).read_bytes()
    (model_folder / SINGLE).write_bytes(whole[:-10])
    with pytest.raises(PipelineError, match=f"has {len(whole) - 10} bytes, .* {len(whole)}"):
        count_parameters(model_folder / SINGLE)


def test_a_large_file_is_linked_and_not_copied(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("weights")
    (tmp_path / "snapshot").symlink_to(tmp_path / "blob")
    link(tmp_path / "snapshot", tmp_path / "out")
    assert (tmp_path / "out").stat().st_ino == (tmp_path / "blob").stat().st_ino
    assert not (tmp_path / "out").is_symlink()


def test_where_linking_fails_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "blob").write_text("weights")
    link(tmp_path / "blob", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "weights"
