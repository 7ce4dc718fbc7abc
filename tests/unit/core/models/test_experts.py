"""Fused experts in 4 bit and with LoRA, compared with PEFT's own on the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tasks.base.reduced_model import build
from tasks.core.models.experts.forward import use_own_forward
from tasks.core.models.experts.fused import fused_weights, values_of
from tasks.core.models.loading import load_model
from tasks.core.models.traits.model_traits import ModelTraits
from tests.unit.base.families import tiny_config

IDS = torch.arange(3, 27)[None] * 7 % 256


@pytest.fixture(params=["qwen3_moe", "gpt_oss"])
def folder(request: Any, tmp_path: Path) -> Path:
    build(tiny_config(request.param), "eager").save_pretrained(tmp_path)
    ModelTraits(attention="eager", isolation="mask", experts=True).write(tmp_path)
    return tmp_path


def with_lora(model: Any) -> Any:
    names = [weight.name for weight in fused_weights(model)]
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=9, target_modules=["q_proj"], target_parameters=names)
    tuned = get_peft_model(model, config)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return tuned


def outcome(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = model(input_ids=IDS, use_cache=False).logits
    logits.square().mean().backward()
    return logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def test_experts_in_4_bit_with_lora_compute_what_peft_computes_on_the_same_weights(
    folder: Path,
) -> None:
    quantized = load_model(
        folder, quantization="nf4", device="cpu", dtype="float32", trainable=True
    )
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain.set_attn_implementation("eager")
    for name, parameter in quantized.named_parameters():
        if getattr(parameter, "quant_state", None) is not None:
            values = dequantize_4bit(parameter.data, parameter.quant_state)
            assert not torch.equal(values, plain.get_parameter(name))
            plain.get_parameter(name).data = values
    plain = with_lora(plain.requires_grad_(False))
    tuned = with_lora(quantized)
    use_own_forward(tuned)
    (found, gradients), (expected, wanted) = outcome(tuned), outcome(plain)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-3)


def test_loading_quantizes_every_fused_weight(folder: Path) -> None:
    model = load_model(folder, quantization="nf4", device="cpu", dtype="float32")
    weights = list(fused_weights(model))
    assert len(weights) == 4
    for weight in weights:
        parameter = model.get_parameter(weight.name)
        assert parameter.dtype == torch.uint8
        assert parameter.numel() == weight.values // 2
    whole = load_model(folder, quantization="none", device="cpu", dtype="float32")
    assert values_of(model) == values_of(whole) == sum(w.values for w in weights)


def test_a_base_without_the_trait_keeps_its_experts_in_16_bit(folder: Path) -> None:
    ModelTraits(attention="eager", isolation="mask").write(folder)
    model = load_model(folder, quantization="nf4", device="cpu", dtype="float32")
    for weight in fused_weights(model):
        assert model.get_parameter(weight.name).dtype == torch.float32


def test_gradients_of_4_bit_experts_need_no_copy_of_them(folder: Path) -> None:
    model = load_model(folder, quantization="nf4", device="cpu", dtype="float32", trainable=True)
    saved: list[int] = []
    hidden = model.get_input_embeddings()(IDS).requires_grad_()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    smallest = min(weight.values for weight in fused_weights(model))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module = next(m for n, m in model.named_modules() if n.endswith("experts"))
        chosen = torch.arange(2 * hidden.shape[1]).view(-1, 2) % 4
        module(hidden[0], chosen, torch.ones(chosen.shape))
    assert saved
    assert max(saved) < smallest


def test_an_adapter_that_is_off_leaves_the_base(folder: Path) -> None:
    model = load_model(folder, quantization="none", device="cpu", dtype="float32")
    base = model(input_ids=IDS, use_cache=False).logits
    tuned = with_lora(model)
    use_own_forward(tuned)
    changed = tuned(input_ids=IDS, use_cache=False).logits
    assert not torch.allclose(changed, base, atol=1e-3)
    with tuned.disable_adapter():
        torch.testing.assert_close(tuned(input_ids=IDS, use_cache=False).logits, base)
