import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tasks.core.errors import PipelineError
from tasks.core.models.model_folder import INDEX_FILE
from tasks.merging.safetensors_io import (
    list_tensors,
    plan_shards,
    write_shards,
)
from tests.unit.merging.conftest import make_base


def copy(source, out, max_bytes, dtype=torch.bfloat16):
    out.mkdir()
    shards = plan_shards(list_tensors(source), max_bytes)
    write_shards(shards, out, dtype, lambda name, tensor: tensor, "copying")
    return shards


def test_shards_stay_below_their_limit_and_transformers_loads_them(tmp_path):
    make_base(tmp_path / "weights")
    shards = copy(tmp_path / "weights", tmp_path / "out", 40_000)
    assert len(shards) > 2
    for entries, file in zip(shards, sorted((tmp_path / "out").glob("*.safetensors")), strict=True):
        assert sum(e.size for e in entries) <= 40_000
        assert sum(t.nbytes for t in load_file(file).values()) == sum(e.size for e in entries)
    (tmp_path / "out" / "config.json").write_bytes((tmp_path / "weights/config.json").read_bytes())
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "weights", dtype=torch.bfloat16)
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    assert all(torch.equal(t, after[name]) for name, t in before.state_dict().items())


def test_index_holds_the_size_and_every_tensor(tmp_path):
    make_base(tmp_path / "weights")
    shards = copy(tmp_path / "weights", tmp_path / "out", 40_000)
    index = json.loads((tmp_path / "out" / INDEX_FILE).read_text())
    assert index["metadata"]["total_size"] == sum(e.size for s in shards for e in s)
    assert set(index["weight_map"]) == {e.name for s in shards for e in s}


def test_one_file_needs_no_index(tmp_path):
    make_base(tmp_path / "weights")
    copy(tmp_path / "weights", tmp_path / "out", 10**9)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_integers_keep_their_type(tmp_path):
    source = tmp_path / "weights"
    source.mkdir()
    save_file({"a": torch.arange(3), "b": torch.ones(2)}, source / "model.safetensors")
    copy(source, tmp_path / "out", 10**9, torch.float16)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert (found["a"].dtype, found["b"].dtype) == (torch.int64, torch.float16)


def test_value_that_the_type_cannot_hold_is_named(tmp_path):
    source = tmp_path / "weights"
    source.mkdir()
    save_file({"layer.weight": torch.tensor([1.0, 70_000.0])}, source / "model.safetensors")
    with pytest.raises(PipelineError, match=r"layer\.weight reaches 7e\+04, which float16"):
        copy(source, tmp_path / "out", 10**9, torch.float16)


def test_folder_without_safetensors_is_rejected(tmp_path):
    with pytest.raises(PipelineError, match="no safetensors"):
        list_tensors(tmp_path)
