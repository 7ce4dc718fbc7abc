"""Adapters on fused experts: merged tensor by tensor as PEFT merges them as a whole."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tasks.base.reduced_model import build
from tasks.core.errors import PipelineError
from tasks.core.models.experts.fused import fused_weights
from tasks.core.models.loading import attach_adapter, load_model
from tasks.core.models.traits.model_traits import ModelTraits
from tasks.merging.adapter import read_adapter
from tasks.merging.candidates import merged_tensor
from tasks.merging.expert_tensors import ExpertTensors
from tasks.merging.run import _check_names
from tasks.merging.safetensors_io import list_tensors
from tasks.merging.strategies.base16 import BASE16
from tasks.merging.strategies.dequantized import DEQUANTIZED
from tests.unit.base.families import tiny_config

IDS = torch.arange(3, 20)[None] * 7 % 256


def make(tmp_path: Path, family: str, **options: Any) -> tuple[Path, Path]:
    """A tiny base and an adapter that plain PEFT made."""
    weights, adapter = tmp_path / "weights", tmp_path / "adapter"
    build(tiny_config(family), "eager").save_pretrained(weights)
    ModelTraits(attention="eager", isolation="mask", experts=True).write(weights)
    base = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    torch.manual_seed(1)
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"]} | options
    tuned = get_peft_model(base, LoraConfig(**options, task_type="CAUSAL_LM"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned.save_pretrained(adapter)
    return weights, adapter


def merged(weights: Path, adapter: Path, quantized: Any = None) -> dict[str, Tensor]:
    traits, read = ModelTraits.read(weights), read_adapter(adapter, weights)
    experts = ExpertTensors.of(weights, read.parameters, traits.experts)
    experts.quantized = quantized or {}
    _check_names(read, experts, list_tensors(weights), traits)
    strategy = DEQUANTIZED if quantized else BASE16
    return {
        name: merged_tensor(
            *(name, tensor, strategy, read, experts, quantized or {}, traits, torch.float32)
        )
        for name, tensor in load_file(weights / "model.safetensors").items()
    }


def by_peft(weights: Path, adapter: Path) -> dict[str, Tensor]:
    """What PEFT makes of it, under the names of the checkpoint."""
    base = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    model.save_pretrained(adapter.parent / "reference")
    return load_file(adapter.parent / "reference" / "model.safetensors")


FUSED = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("mixtral", {"target_parameters": [*FUSED, "gate.weight"], "use_rslora": True}),
        ("qwen3_moe", {"target_parameters": FUSED, "rank_pattern": {"experts.down_proj": 2}}),
        ("mixtral", {"target_parameters": ["layers.1.mlp.experts.down_proj"]}),
        ("gpt_oss", {"target_parameters": FUSED}),
        # the names of earlier versions of transformers, which PEFT rewrites to fused parameters
        ("mixtral", {"target_modules": ["q_proj", "w1", "w2", "w3", "gate"]}),
        ("deepseek_v3", {"target_modules": ["o_proj", "gate_proj", "up_proj", "down_proj"]}),
        ("granitemoehybrid", {"target_parameters": FUSED}),
    ],
)
def test_merging_tensor_by_tensor_is_pefts_merge(
    tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    weights, adapter = make(tmp_path, family, **options)
    before = load_file(weights / "model.safetensors")
    found, expected = merged(weights, adapter), by_peft(weights, adapter)
    assert found.keys() == expected.keys()
    changed = {name for name in found if not torch.equal(found[name], before[name])}
    assert changed == {n for n in expected if not torch.equal(expected[n], before[n])}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_the_dequantized_merge_is_base_and_adapter_in_4_bit(tmp_path: Path, family: str) -> None:
    weights, adapter = make(tmp_path, family, target_parameters=FUSED)
    base = load_model(weights, quantization="nf4", device="cpu", dtype="float32", trainable=True)
    quantized = {n: p for n, p in base.named_parameters() if hasattr(p, "quant_state")}
    assert {weight.name for weight in fused_weights(base)} < quantized.keys()
    tensors = merged(weights, adapter, quantized)
    with torch.no_grad():
        expected = attach_adapter(base, adapter)(input_ids=IDS, use_cache=False).logits
        save_file(tensors, weights / "model.safetensors", metadata={"format": "pt"})
        model = load_model(weights, quantization="none", device="cpu", dtype="float32")
        found = model(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_adapter_with_dropout_on_linear_layers_is_attached(tmp_path: Path) -> None:
    weights, adapter = make(tmp_path, "mixtral", target_parameters=FUSED)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_dropout": 0.1}))
    model = load_model(weights, quantization="none", device="cpu", dtype="float32")
    before = model(input_ids=IDS, use_cache=False).logits
    assert not torch.equal(attach_adapter(model, adapter)(input_ids=IDS).logits, before)


def test_a_missing_expert_tensor_is_named(tmp_path: Path) -> None:
    weights, adapter = make(tmp_path, "mixtral", target_parameters=FUSED)
    tensors = load_file(adapter / "adapter_model.safetensors")
    del tensors["base_model.model.model.layers.1.mlp.experts.base_layer.lora_B.weight"]
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(PipelineError, match=r"no tensor .*layers\.1\.mlp\.experts\.base_layer"):
        read_adapter(adapter, weights)


def test_experts_of_another_base_are_rejected_before_the_merge(tmp_path: Path) -> None:
    weights, adapter = make(tmp_path, "mixtral", target_parameters=FUSED)
    tensors = load_file(weights / "model.safetensors")
    del tensors["model.layers.1.block_sparse_moe.experts.3.w2.weight"]
    save_file(tensors, weights / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PipelineError, match=r"1 layers that the base does not have, .*3\.w2"):
        merged(weights, adapter)
