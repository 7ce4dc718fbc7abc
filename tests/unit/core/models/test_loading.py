"""Loading tiny random models in 4 and in 16 bit."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.core.errors import PipelineError
from tasks.core.models import loading
from tasks.core.models.pretrained import read_config
from tasks.core.models.traits.model_traits import ModelTraits
from tests.unit.core.models.test_packed_forward import SHAPE, make


def test_no_linear_layer_is_upcast_or_left_trainable(tmp_path: Path) -> None:
    make("stablelm").save_pretrained(tmp_path)
    model = loading.load_model(tmp_path, quantization="nf4", device="cpu")
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


@pytest.mark.parametrize("kind", ["llama", "stablelm"])
def test_linear_names_are_the_same_in_4_and_16_bit(kind: str, tmp_path: Path) -> None:
    make(kind).save_pretrained(tmp_path)
    small = loading.load_model(tmp_path, quantization="nf4", device="cpu")
    plain = loading.load_model(tmp_path, quantization="none", device="cpu")
    assert type(small.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    names = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert loading.linear_names(small) == loading.linear_names(plain) == names


def test_folder_without_a_model_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no model can be loaded"):
        loading.load_model(tmp_path, device="cpu")


def test_four_bit_on_a_cpu_needs_whole_blocks(tmp_path: Path) -> None:
    shape = SHAPE | {"intermediate_size": 96}
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(tmp_path)
    with pytest.raises(PipelineError, match=r"not a multiple of 64 \(down_proj 96\)"):
        loading.load_model(tmp_path, quantization="nf4", device="cpu")
    loading.load_model(tmp_path, quantization="none", device="cpu")


def test_dropouts_of_the_base_are_off(tmp_path: Path) -> None:
    config = LlamaConfig(**SHAPE, attention_dropout=0.1, attention_bias=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = loading.load_model(tmp_path, quantization="none", device="cpu")
    assert model.config.attention_dropout == 0
    assert model.model.layers[0].self_attn.attention_dropout == 0
    assert model.config.attention_bias is True


def test_weights_that_the_gpu_cannot_hold_are_rejected_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("llama").save_pretrained(tmp_path)
    config = read_config(tmp_path)
    for quantization in ("none", "nf4"):
        model = loading.load_model(
            tmp_path, quantization=quantization, device="cpu", dtype="bfloat16"
        )
        size = sum(p.numel() * p.element_size() for p in model.parameters()) / loading.GIB
        monkeypatch.setattr(loading, "memory_limit_gib", lambda _, size=size: size * 1.2)
        loading._check_fits(config, ModelTraits(), quantization, None, False)
        monkeypatch.setattr(loading, "memory_limit_gib", lambda _, size=size: size * 0.8)
        with pytest.raises(PipelineError, match=r"weights take .* GiB and .* GiB of GPU memory"):
            loading._check_fits(config, ModelTraits(), quantization, None, False)
