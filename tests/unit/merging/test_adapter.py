import json

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.errors import PipelineError
from tasks.merging.adapter import read_adapter
from tests.unit.merging.conftest import (
    TARGETS,
    make_adapter,
    make_base,
    reference,
)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("stablelm", {}),
        ("llama", {"use_rslora": True}),
        ("llama", {"use_dora": True}),
        ("stablelm", {"use_dora": True, "use_rslora": True}),
        ("llama", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 32}}),
        ("llama", {"layers_to_transform": [1]}),
    ],
)
def test_merging_tensor_by_tensor_is_pefts_merge(tmp_path, kind, options):
    make_base(tmp_path / "weights", kind)
    make_adapter(tmp_path / "weights", tmp_path / "adapter", **options)
    adapter = read_adapter(tmp_path / "adapter", tmp_path / "weights")
    expected = reference(tmp_path / "weights", tmp_path / "adapter")
    changed = 0
    for name, tensor in load_file(tmp_path / "weights" / "model.safetensors").items():
        update = adapter.updates.get(name.removesuffix(".weight"))
        merged = update.apply(tensor) if update else tensor
        torch.testing.assert_close(merged, expected[name], atol=1e-5, rtol=1e-5)
        changed += not torch.equal(merged, tensor)
    assert (
        changed
        == len(adapter.updates)
        == len(TARGETS) * (1 if options.get("layers_to_transform") else 2)
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modules_to_save", ["lm_head"]),
        ("bias", "all"),
        ("peft_type", "LOHA"),
        ("init_lora_weights", "pissa"),
        ("lora_bias", True),
    ],
)
def test_adapter_that_does_more_is_rejected_by_name(tmp_path, field, value):
    make_base(tmp_path / "weights")
    make_adapter(tmp_path / "weights", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(PipelineError) as error:
        read_adapter(tmp_path / "adapter", tmp_path / "weights")
    assert (value if field == "peft_type" else field) in error.value.problem


def test_tensor_that_belongs_to_no_linear_layer_is_rejected(tmp_path):
    make_base(tmp_path / "weights")
    make_adapter(
        tmp_path / "weights", tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"]
    )
    with pytest.raises(PipelineError, match="embed_tokens"):
        read_adapter(tmp_path / "adapter", tmp_path / "weights")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"adapter_config\.json"):
        read_adapter(tmp_path, tmp_path)
