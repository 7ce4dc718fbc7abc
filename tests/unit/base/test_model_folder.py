import json
from pathlib import Path

import pytest

from tasks.base.model_folder import (
    count_parameters,
    model_files,
    weight_files,
)
from tasks.core.errors import PipelineError
from tasks.core.models.model_folder import INDEX_FILE, WEIGHTS_FILE


def test_only_known_files_are_read(model_folder: Path) -> None:
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
        (WEIGHTS_FILE, "has neither model.safetensors nor"),
    ],
)
def test_folder_without_a_part_is_an_error_that_names_it(
    model_folder: Path, missing: str, problem: str
) -> None:
    (model_folder / missing).unlink()
    with pytest.raises(PipelineError, match=problem):
        model_files(model_folder)


def test_pickled_weights_are_rejected(model_folder: Path) -> None:
    (model_folder / WEIGHTS_FILE).rename(model_folder / "pytorch_model.bin")
    with pytest.raises(PipelineError, match=r"only as pytorch_model\.bin.*\nUse a revision with"):
        model_files(model_folder)


def test_index_with_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "model-1.safetensors").touch()
    with pytest.raises(PipelineError, match=r"1 of 2 shards .* first model-2\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "model-2.safetensors").touch()
    assert len(weight_files(tmp_path)) == 3


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "in/x.safetensors"])
def test_index_with_a_shard_outside_of_its_folder_is_an_error(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "x.safetensors").touch()
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(PipelineError, match="outside of its folder"):
        weight_files(folder)


def test_parameters_are_counted_from_the_header(saved_model: Path) -> None:
    assert (
        count_parameters(saved_model / WEIGHTS_FILE)
        == 2 * 257 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"\x05" + bytes(20)],
)
def test_file_that_is_not_safetensors_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(PipelineError, match="not a complete safetensors file"):
        count_parameters(tmp_path / WEIGHTS_FILE)


def test_truncated_file_is_an_error(model_folder: Path) -> None:
    whole = (model_folder / WEIGHTS_FILE).read_bytes()
    (model_folder / WEIGHTS_FILE).write_bytes(whole[:-10])
    with pytest.raises(PipelineError, match=f"has {len(whole) - 10} bytes, .* {len(whole)}"):
        count_parameters(model_folder / WEIGHTS_FILE)
